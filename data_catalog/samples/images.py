"""Decode any picture from a user to RGB uint8 in sRGB, or say why not.

Supported: palette, grey, CMYK, L*a*b* and 16-bit pictures (scaled to 8 bits), colour profiles and other notes of a
colour space (converted to sRGB; sRGB keeps its pixels), EXIF rotation (applied), alpha (composited on white), a wrong
file suffix (the content decides). An animation gives its first frame.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.samples import colour, png
from data_catalog.samples.formats import ODD_TIFF, RAW_HINT, is_raw_tiff, is_whole_tiff, name_foreign

if TYPE_CHECKING:
    from PIL import Image

# Formats that Pillow decodes itself: others may start a program on the file, as its EPS reader does.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF", "PPM")
DECODER = 2  # version of decoding, which stages that read a user's pictures depend on; raised when pixels change
MAX_PIXELS = 50_000_000
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8")
_EXIF, _INTEROP, _COLOUR_SPACE, _ORIENTATION = 0x8769, 0xA005, 0xA001, 0x0112  # tags of EXIF
_TURNS = {  # undo each orientation of EXIF
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class Decoded:
    """Decoded picture, rgb (H, W, 3) uint8, sRGB."""

    rgb: np.ndarray


@dataclass(frozen=True)
class Rejected:
    """Rejection of a picture: `reason` is one of a few that are counted, `detail` and `hint` are for the reader."""

    reason: str
    detail: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.reason, self.detail, self.hint) if part)

    def as_error(self, message: str) -> UserError:
        """Return the error for a command that needs this picture."""
        fields = {"detail": self.detail} if self.detail else {}
        return UserError(f"{message}: {self.reason}", hint=self.hint or None, **fields)


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = 1) -> Decoded | Rejected:
    """Decode a picture, or reject it as one of: empty file, not an image, truncated, corrupt, too large, too small,
    unsupported pixels, or by the name of a format that is not read.
    """
    if not data:
        return Rejected("empty file")
    if is_raw_tiff(data):
        return Rejected("camera RAW is not read", hint=RAW_HINT)
    decoded = _decode(data, data, max_pixels, min_side)
    if isinstance(decoded, Rejected) and decoded.reason == "corrupt" and data.startswith(png.SIGNATURE):
        # Pillow refuses long texts and any wrong checksum; neither is part of the picture.
        decoded = _decode(png.without_extras(data), data, max_pixels, min_side)
    return decoded


def read_image(path: Path, max_pixels: int = MAX_PIXELS, min_side: int = 1) -> Decoded | Rejected:
    """Decode a file's picture as `decode_image` does; an unreadable file is rejected as `unreadable`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Rejected("unreadable", f"{type(error).__name__}: {error.strerror}")
    return decode_image(data, max_pixels, min_side)


def decode_picture(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Decoded | Rejected:
    """Decode a picture that Pillow has opened, as its file would be."""
    try:
        return _refuse(image, max_pixels, 1) or _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:
        return _broken(error)


def _decode(data: bytes, whole: bytes, max_pixels: int, min_side: int) -> Decoded | Rejected:
    """data: what Pillow is given of the `whole` file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Both of Pillow's bomb limits are global; the size is checked below, before any pixel is decoded.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            refused = _refuse(image, max_pixels, min_side)
            if refused:
                return refused
            if image.format == "PNG":
                Image.open(io.BytesIO(data), formats=("PNG",)).verify()  # the decoder skips the checksums
                image.info.update(png.read_colour(whole))
            elif image.format == "AVIF" and "icc_profile" not in image.info:
                image.info.update(_read_nclx(whole))
            return _to_rgb(image)
    except Image.DecompressionBombError as error:
        return Rejected("too large", str(error))
    except UnidentifiedImageError:
        foreign = name_foreign(whole) or (ODD_TIFF if is_whole_tiff(whole) else None)
        if foreign is not None:
            return Rejected(foreign.reason, hint=foreign.hint)
        begun = whole.startswith(_MAGIC) or whole[8:12] == b"WEBP" or whole[4:8] == b"ftyp"
        return Rejected("corrupt", png.find_damage(whole)) if begun else Rejected("not an image")
    except MemoryError:
        raise
    except Exception as error:
        return _broken(error)


def _broken(error: Exception) -> Rejected:
    # Pillow's readers raise nearly anything on hostile bytes; each is a rejected portrait.
    truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
    return Rejected("truncated" if truncated else "corrupt", f"{type(error).__name__}: {error}")


def _refuse(image: Image.Image, max_pixels: int, min_side: int) -> Rejected | None:
    width, height = image.size
    if width * height > max_pixels:
        return Rejected("too large", f"{width}x{height} px, at most {max_pixels} pixels are allowed")
    if min(width, height) < min_side:
        return Rejected("too small", f"{width}x{height} px, each side needs {min_side}")
    return None


def _to_rgb(image: Image.Image) -> Decoded | Rejected:
    from PIL import Image

    if image.format == "PNG" and "transparency" in image.info:
        _scale_clear_level(image)
    negative, top = _grey_levels(image)
    image.load()
    orientation, is_adobe = _read_exif(image)
    space = _noted_space(image, is_adobe)
    if orientation in _TURNS:
        image = image.transpose(Image.Transpose[_TURNS[orientation]])
    if image.mode == "F":
        return Rejected("unsupported pixels", "floating-point pixels have no known range")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            return Rejected("unsupported pixels", f"mode {image.mode} beyond 16 bits")
        clear = image.info.get("transparency")
        levels = (top - levels if negative else levels) * 65535 // top
        mask = None if clear is None else Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))
        info, image = image.info, Image.fromarray(levels.astype(np.uint16))
        image.info |= info
    else:
        image, mask = _part_alpha(image)
    rgb = _to_srgb(image, space)
    if mask is None:
        return Decoded(rgb)
    layer = Image.fromarray(rgb)
    layer.putalpha(mask)
    page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Decoded(np.array(Image.alpha_composite(page, layer).convert("RGB"), dtype=np.uint8))


def _grey_levels(image: Image.Image) -> tuple[bool, int]:
    """Whether deep grey of a TIFF begins at white, which Pillow leaves so, and its highest level."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))[0]  # BitsPerSample
    return tags.get(262) == 0, 65535 if bits > 16 else (1 << bits) - 1  # PhotometricInterpretation


def _scale_clear_level(image: Image.Image) -> None:
    """Bring the level that is clear to the 8 bits that Pillow makes of 2 and 4 bits of grey and of 16 of colour."""
    clear, stored = image.info["transparency"], [tile[3] for tile in getattr(image, "tile", [])]
    if stored in (["L;2"], ["L;4"]):
        image.info["transparency"] = clear * (85 if stored == ["L;2"] else 17)
    elif stored == ["RGB;16B"]:
        image.info["transparency"] = tuple(level >> 8 for level in clear)


def _part_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Part a picture into opaque colours, grey or RGB where they were a palette's, and its alpha."""
    if image.mode in ("RGBa", "La"):
        image = image.convert(f"{image.mode[:-1]}A")
    if image.mode == "PA" or (image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image, None


def _to_srgb(image: Image.Image, space: colour.Space | None) -> np.ndarray:
    """Return (H, W, 3) uint8.  space: where one is noted that comes before a profile, or without one."""
    profile = image.info.get("icc_profile") or (colour.lab_profile() if image.mode == "LAB" else None)
    if space is None and profile:
        converted = colour.by_profile(image, profile)
        if converted is None and image.mode == "LAB":
            converted = colour.by_profile(image, colour.lab_profile())
        if converted is not None:
            return np.array(converted)
    if image.mode == "I;16":
        grey = np.asarray(image)
        if space in (None, colour.SRGB):
            grey = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return colour.to_srgb(np.repeat(grey[:, :, None], 3, axis=2), space or colour.SRGB)
    return colour.to_srgb(np.array(image.convert("RGB"), dtype=np.uint8), space or colour.SRGB)


def _noted_space(image: Image.Image, is_adobe: bool) -> colour.Space | None:
    """Return the colour space that is noted beside the pixels; None where there is none, or a profile that counts.

    is_adobe: whether EXIF notes Adobe RGB, which counts last.
    """
    info: dict[Any, Any] = image.info
    if "cicp" in info:
        return colour.coded_space(*info["cicp"][:2])
    if info.get("icc_profile"):
        return None
    if "srgb" in info:
        return colour.SRGB
    if "gamma" in info or "chromaticity" in info:
        return colour.noted_space(info.get("gamma"), info.get("chromaticity"))
    return colour.ADOBE_RGB if is_adobe else None


def _read_exif(image: Image.Image) -> tuple[int, bool]:
    """Return the orientation, 1 to 8, and whether a camera notes Adobe RGB; EXIF that is damaged is left out."""
    orientation = 1
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        camera = exif.get_ifd(_EXIF)
        noted = camera.get(_COLOUR_SPACE)
        rules = exif.get_ifd(_INTEROP).get(1) if _INTEROP in camera else None
    except Exception:  # Pillow raises nearly anything on hostile bytes
        return orientation, False
    return orientation, noted == 2 or (noted != 1 and str(rules).startswith("R03"))  # DCF 2.0


def _read_nclx(data: bytes) -> dict[str, Any]:
    """Return `cicp` of an AVIF: codes of primaries, curve and matrix, which Pillow does not tell."""
    place = data.find(b"colrnclx", 0, 65536)
    return {} if place < 0 or place + 14 > len(data) else {"cicp": struct.unpack_from(">3H", data, place + 8)}
