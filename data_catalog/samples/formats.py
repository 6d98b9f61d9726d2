"""Files that are no picture this project reads, by their first bytes: each by its name, with the next step."""

from __future__ import annotations

import struct
from pathlib import PurePath
from typing import NamedTuple

# Suffixes of a folder's pictures; those that are not read are named, each with the next step.
_READ = ".png .jpg .jpeg .jpe .jfif .webp .avif .bmp .dib .tif .tiff .gif .ppm .pgm .pbm .pnm"
_UNREAD = ".heic .heif .hif .jxl .jp2 .j2k .psd .svg .exr .dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .pef .srw"
SUFFIXES = frozenset((_READ + " " + _UNREAD).split())

CONVERT = "convert it, for example: magick in.{0} out.png"
RAW_HINT = "develop it to PNG or JPEG, for example with darktable, RawTherapee or: dcraw -w -T FILE"
FRAME_HINT = "a video goes to stillroom edit-video; one picture of it: ffmpeg -i FILE -frames:v 1 out.png"
HEIF_HINT = "convert it, for example: heif-convert in.heic out.png, or: magick in.heic out.png"
DOWNLOAD_HINT = "download the picture itself again"


class Foreign(NamedTuple):
    """Kind of a file, in a sentence, and the next step."""

    reason: str
    hint: str


def is_picture_name(name: str) -> bool:
    """Whether a file of a folder counts as a picture; hidden ones do not."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in SUFFIXES


def _unread(name: str, hint: str = "") -> Foreign:
    return Foreign(f"{name} is not read", hint or CONVERT.format(name.split(" ", maxsplit=1)[0].lower()))


_JXL = _unread("JPEG XL", "convert it, for example: djxl in.jxl out.png")
_JP2 = _unread("JPEG 2000", CONVERT.format("jp2"))
_RAW = _unread("camera RAW", RAW_HINT)
_VIDEO = Foreign("a video, not a picture", FRAME_HINT)
_PAGE = Foreign("a web page, not a picture", DOWNLOAD_HINT)
_ARCHIVE = Foreign("an archive, not a picture", "unpack it")
_SVG = _unread("SVG", "draw it as pixels, for example: rsvg-convert in.svg -o out.png")
_POSTSCRIPT = _unread("PostScript", "draw it as pixels, for example: gs -sDEVICE=png16m -r300 -o out.png in.eps")

ODD_TIFF = Foreign("this kind of TIFF is not read", "convert it, for example: magick in.tif out.png")

_STARTS: tuple[tuple[bytes, Foreign], ...] = (
    (b"\xff\x0a", _JXL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", _JXL),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _JP2),
    (b"\xff\x4f\xff\x51", _JP2),
    (b"8BPS", _unread("PSD", "save it as PNG, or: magick 'in.psd[0]' out.png")),
    (b"gimp xcf", _unread("XCF", "export it as PNG in GIMP")),
    (b"%PDF", _unread("PDF", "draw a page as pixels, for example: pdftoppm -png -r 150 in.pdf out")),
    (b"%!PS", _POSTSCRIPT),
    (b"\xc5\xd0\xd3\xc6", _POSTSCRIPT),
    (b"\x76\x2f\x31\x01", _unread("EXR (OpenEXR)")),
    (b"#?RADIANCE", _unread("HDR (Radiance)")),
    (b"II\xbc\x01", _unread("JXR (JPEG XR)")),
    (b"BPG\xfb", _unread("BPG")),
    (b"qoif", _unread("QOI")),
    (b"DDS ", _unread("DDS")),
    (b"\0\0\x01\0", _unread("ICO")),
    (b"icns", _unread("ICNS")),
    (b"\xd7\xcd\xc6\x9a", _unread("WMF")),
    *((start, _RAW) for start in (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")),
    *((start, _VIDEO) for start in (b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"OggS")),
    *((start, _ARCHIVE) for start in (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")),
    (b"version https://git-lfs", Foreign("a pointer of Git LFS, not the picture", "git lfs pull")),
    (b"/annex/objects/", Foreign("a pointer of git-annex, not the picture", "git annex get FILE")),
    (b"\0\x05\x16\x07", Foreign("macOS's notes about a file, not the picture", "take the file without ._")),
)
# Brands of the ISO container, by their beginnings.
_BRANDS: tuple[tuple[bytes, Foreign | None], ...] = (
    (b"avif", None),
    (b"avis", None),
    (b"crx ", _RAW),
    (b"jp2", _JP2),
    (b"jxl", _JXL),
    *((brand, _unread("HEIC", HEIF_HINT)) for brand in (b"hei", b"hev", b"mif1", b"msf1")),
)


def name_foreign(data: bytes) -> Foreign | None:
    """Name a file by its first bytes, if it is something known that is not read."""
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    if data[4:8] == b"ftyp":
        return _name_brand(data)
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return _VIDEO
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return _PAGE
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in data[:65536].lower():
        return _SVG
    if text.startswith(b"<"):
        return _PAGE if b"<html" in text else Foreign("XML, not a picture", DOWNLOAD_HINT)
    if text.startswith((b"{", b"[")):
        return Foreign("JSON, not a picture", "")
    return None


def is_raw_tiff(data: bytes) -> bool:
    """Whether a TIFF is a camera's raw file: read as a picture, it would give its thumbnail.

    DNG, and CR2, NEF, ARW, PEF and others, which are TIFFs whose first picture is a preview or a sensor's mosaic.
    """
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    if data[8:10] == b"CR":
        return True
    tags = _first_tags(data)
    mosaic = tags.get(262) in (32803, 34892)  # PhotometricInterpretation: CFA, linear raw
    preview = bool((tags.get(254) or 0) & 1) and 330 in tags  # NewSubfileType: reduced; SubIFDs
    return 50706 in tags or mosaic or preview  # DNGVersion


def is_whole_tiff(data: bytes) -> bool:
    """Whether a TIFF says what its pixels are: if it is not read all the same, its kind is a rare one."""
    return data[:4] in (b"II*\0", b"MM\0*") and {256, 257, 258, 262, 273} <= _first_tags(data).keys()


def _first_tags(data: bytes) -> dict[int, int | None]:
    """Tags of the first directory of a TIFF, with the values of those that are one whole number."""
    order = "<" if data[:2] == b"II" else ">"
    tags: dict[int, int | None] = {}
    try:
        (place,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
            form = {3: "H", 4: "I"}.get(kind) if number == 1 else None
            tags[tag] = None if form is None else struct.unpack_from(order + form, data, entry + 8)[0]
    except struct.error:
        pass  # the rest is cut off: Pillow says so
    return tags


def _name_brand(data: bytes) -> Foreign | None:
    brand = data[8:12]
    for start, kind in _BRANDS:
        if brand.startswith(start):
            # The general brands of HEIF are followed by the particular ones.
            others = data[16 : int.from_bytes(data[:4], "big")]
            return None if start in (b"mif1", b"msf1") and b"avif" in others else kind
    return _VIDEO
