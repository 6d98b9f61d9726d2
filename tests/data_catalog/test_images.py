"""Any picture is read right or rejected with its reason."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from data_catalog.samples.images import Decoded, Rejected, decode_image, decode_picture, read_image
from tests.worlds.exif import store


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    """(H, W, 3) uint8, smooth, and different along both axes."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, (rows + columns) % 256], axis=2).astype(np.uint8)


def encoded(image: Image.Image, name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def rgb_of(data: bytes, **options: int) -> np.ndarray:
    decoded = decode_image(data, **options)
    assert isinstance(decoded, Decoded), decoded
    assert decoded.rgb.dtype == np.uint8
    return decoded.rgb


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_a_png_is_read_exactly() -> None:
    np.testing.assert_array_equal(rgb_of(encoded(Image.fromarray(gradient()))), gradient())


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "BMP", "TIFF", "PPM"])
def test_other_formats_are_read(name: str) -> None:
    options = {"quality": 95, "subsampling": 0} if name == "JPEG" else {"quality": 95} if name == "WEBP" else {}
    error = np.abs(rgb_of(encoded(Image.fromarray(gradient()), name, **options)).astype(int) - gradient())
    assert error.mean() < 4


def test_cmyk_is_read_as_the_colours_it_shows() -> None:
    image = Image.fromarray(gradient()).convert("CMYK")
    for name, options in (("JPEG", {"quality": 98}), ("TIFF", {})):
        error = np.abs(rgb_of(encoded(image, name, **options)).astype(int) - gradient())
        assert error.mean() < 4


def test_16_bit_grey_is_scaled_to_8_bits() -> None:
    levels = np.array([[0, 257, 32896, 65535]] * 4, dtype=np.uint16)
    rgb = rgb_of(encoded(Image.fromarray(levels)))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 1, 128, 255])
    np.testing.assert_array_equal(rgb[..., 0], rgb[..., 2])


def test_16_bit_colour_is_scaled_to_8_bits() -> None:
    row = b"\0" + struct.pack(">3H", 65535, 32896, 0) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(row * 2))
    np.testing.assert_array_equal(rgb_of(data + png_chunk(b"IEND", b""))[1, 1], [255, 128, 0])


def test_alpha_is_composited_on_white() -> None:
    rgba = np.zeros((4, 3, 4), np.uint8)
    rgba[:, :, 0] = 255
    rgba[:, 1, 3], rgba[:, 2, 3] = 128, 255
    rgb = rgb_of(encoded(Image.fromarray(rgba)))
    np.testing.assert_array_equal(rgb[0], [[255, 255, 255], [255, 127, 127], [255, 0, 0]])


def test_palette_transparency_is_composited_on_white() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    np.testing.assert_array_equal(rgb_of(encoded(image))[0, 0], [10, 20, 30])
    np.testing.assert_array_equal(rgb_of(encoded(image, transparency=0))[0, 0], [255, 255, 255])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    stored, exif = store(Image.fromarray(gradient()), orientation)
    np.testing.assert_array_equal(rgb_of(encoded(stored, exif=exif)), gradient())


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "portrait.png"
    path.write_bytes(encoded(Image.fromarray(gradient()), "BMP"))
    decoded = read_image(path)
    assert isinstance(decoded, Decoded)
    np.testing.assert_array_equal(decoded.rgb, gradient())


def test_empty_and_foreign_files_are_rejected() -> None:
    assert decode_image(b"") == Rejected("empty file")
    assert decode_image(b"no picture") == Rejected("not an image")
    assert decode_image(b"RIFF\4\0\0\0WAVEfmt ") == Rejected("not an image")
    assert decode_image(b"\x89PNG\r\n\x1a\n") == Rejected("corrupt")
    assert decode_image(iso(b"avif", b"mif1")) == Rejected("corrupt")


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_truncated_picture_is_rejected(name: str, share: float) -> None:
    data = encoded(Image.fromarray(gradient(200, 200)), name)
    rejected = decode_image(data[: int(len(data) * share)])
    assert isinstance(rejected, Rejected)
    assert rejected.reason in ("truncated", "corrupt", "not an image")


def test_a_flipped_byte_in_a_png_is_rejected() -> None:
    data = bytearray(encoded(Image.fromarray(gradient()), compress_level=0))
    data[len(data) // 2] ^= 1
    rejected = decode_image(bytes(data))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "corrupt"


def test_random_damage_never_raises() -> None:
    generator = np.random.default_rng(0)
    for name in ("PNG", "JPEG", "WEBP", "TIFF", "GIF"):
        data = encoded(Image.fromarray(gradient()), name)
        for _ in range(60):
            damaged = np.frombuffer(data, np.uint8).copy()
            damaged[generator.integers(0, len(data), 8)] = generator.integers(0, 256, 8)
            assert isinstance(decode_image(damaged.tobytes()), Decoded | Rejected)


def test_a_decompression_bomb_is_rejected_before_it_is_decoded() -> None:
    side = 30_000  # 900 Mpx of zeros in a few hundred bytes of header and stream
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    rejected = decode_image(data + png_chunk(b"IEND", b""))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "too large"


def test_the_pixel_limit_is_a_setting() -> None:
    data = encoded(Image.fromarray(gradient()))
    assert decode_image(data, max_pixels=2399).reason == "too large"
    assert isinstance(decode_image(data, max_pixels=2400), Decoded)
    assert decode_image(data, min_side=41) == Rejected("too small", "60x40 px, each side needs 41")


def iso(brand: bytes, *others: bytes) -> bytes:
    """The beginning of an ISO media file."""
    body = b"ftyp" + brand + bytes(4) + b"".join(others)
    return struct.pack(">I", len(body) + 4) + body + bytes(100)


def raw_tiff(*tags: tuple[int, int]) -> bytes:
    """A small TIFF that Pillow reads, with further tags: (number, value)."""
    tiff = Image.new("RGB", (16, 16))
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags:
        info.tagtype[number] = 4
        info[number] = value
    return encoded(tiff, "TIFF", tiffinfo=info)


@pytest.mark.parametrize(
    ("data", "reason", "hint"),
    [
        (iso(b"heic", b"mif1"), "HEIC is not read", "heif-convert"),
        (iso(b"mif1", b"heic"), "HEIC is not read", "heif-convert"),
        (iso(b"mp42"), "a video, not a picture", "edit-video"),
        (iso(b"qt  "), "a video, not a picture", "edit-video"),
        (b"\x1a\x45\xdf\xa3 webm", "a video, not a picture", "edit-video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video, not a picture", "edit-video"),
        (iso(b"crx "), "camera RAW is not read", "darktable"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), "camera RAW is not read", "darktable"),
        (raw_tiff((50706, 1)), "camera RAW is not read", "darktable"),  # DNG
        (raw_tiff((254, 1), (330, 8)), "camera RAW is not read", "darktable"),  # NEF, ARW: the first is a preview
        (b"FUJIFILMCCD-RAW 0201", "camera RAW is not read", "darktable"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL is not read", "djxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL is not read", "djxl"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 is not read", "magick in.jp2"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg/>', "SVG is not read", "rsvg-convert"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not read", "rsvg-convert"),
        (b"8BPS\0\1", "PSD is not read", "in.psd[0]"),
        (b"%PDF-1.7", "PDF is not read", "pdftoppm"),
        (b"%!PS-Adobe-3.0 EPSF", "PostScript is not read", "png16m"),
        (b"\n<!DOCTYPE html><html>", "a web page, not a picture", "again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "XML, not a picture", "again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a pointer of Git LFS, not the picture",
            "git lfs",
        ),
        (b"PK\x03\x04", "an archive, not a picture", "unpack"),
        (b"\0\x05\x16\x07" + bytes(90), "macOS's notes about a file, not the picture", "._"),
    ],
)
def test_what_is_no_picture_that_is_read_is_named_with_the_next_step(data: bytes, reason: str, hint: str) -> None:
    rejected = decode_image(data)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert hint in rejected.hint
    assert str(rejected).startswith(f"{reason}: ")


def test_an_ordinary_tiff_is_no_raw_file() -> None:
    assert isinstance(decode_image(raw_tiff((254, 0))), Decoded)
    pages = encoded(Image.new("RGB", (9, 9)), "TIFF", save_all=True, append_images=[Image.new("RGB", (4, 4))])
    assert rgb_of(pages).shape == (9, 9, 3)


def test_avif_is_read() -> None:
    error = np.abs(rgb_of(encoded(Image.fromarray(gradient()), "AVIF", quality=95)).astype(int) - gradient())
    assert error.mean() < 4


def with_chunks(data: bytes, *chunks: bytes, at_end: bool = False) -> bytes:
    """A PNG with further chunks, after its header or before its end."""
    place = len(data) - 12 if at_end else 33
    return data[:place] + b"".join(chunks) + data[place:]


BIG = b"x" * 3_000_000  # Pillow takes 1 MiB of text, and 64 MiB in all
BIG_CHUNKS = [
    png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(BIG)),
    png_chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(BIG)),
    png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(BIG)),
    png_chunk(b"tEXt", b"prompt\0" + BIG * 23),
    png_chunk(b"iCCP", b"big\0\0" + zlib.compress(BIG)),
    png_chunk(b"eXIf", b"MM\0*" + BIG),
]


@pytest.mark.parametrize("number", range(len(BIG_CHUNKS)))
def test_large_notes_in_a_png_are_no_damage(number: int) -> None:
    data = encoded(Image.fromarray(gradient()))
    for at_end in (False, True):
        np.testing.assert_array_equal(rgb_of(with_chunks(data, BIG_CHUNKS[number], at_end=at_end)), gradient())


def test_a_wrong_checksum_counts_in_the_picture_alone() -> None:
    image = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(image.transpose(Image.Transpose.ROTATE_180), exif=exif)
    broken = [png_chunk(name, body)[:-1] + b"?" for name, body in ((b"tEXt", b"a\0b"), (b"gAMA", bytes([0, 1, 0, 0])))]
    for at_end in (False, True):
        np.testing.assert_array_equal(rgb_of(with_chunks(data, *broken, at_end=at_end)), gradient())
    damaged = bytearray(with_chunks(data, *broken))
    damaged[-20] ^= 1
    rejected = decode_image(bytes(damaged))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "corrupt"
    header = bytearray(data)
    header[30] ^= 1
    assert decode_image(bytes(header)) == Rejected("corrupt", "the checksum of the chunk IHDR is wrong")


def test_damaged_exif_is_no_damage_of_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "Camera", 72.0
    whole = exif.tobytes()
    generator = np.random.default_rng(0)
    for name in ("JPEG", "PNG", "WEBP"):
        for length in (*range(6, len(whole), 5), len(whole)):
            noise = bytearray(whole[:length])
            noise[generator.integers(6, len(noise)) if length > 6 else 0] ^= 255
            assert isinstance(decode_image(encoded(Image.fromarray(gradient()), name, exif=bytes(noise))), Decoded)


@pytest.mark.parametrize(
    "kind", ["grey 16", "grey 16 alpha", "rgb 16 alpha", "grey", "4 bits", "1 bit", "rgb", "rgb 16"]
)
def test_transparency_is_on_white_at_any_depth(kind: str) -> None:
    """The left half is clear."""
    depth, colours, left, right = {
        "grey 16": (16, 0, (700,), (32896,)),
        "grey 16 alpha": (16, 4, (700, 0), (32896, 65535)),
        "rgb 16 alpha": (16, 6, (700, 0, 9, 0), (32896, 32896, 32896, 65535)),
        "grey": (8, 0, (70,), (128,)),
        "4 bits": (4, 0, (7,), (8,)),
        "1 bit": (1, 0, (1,), (0,)),
        "rgb 16": (16, 2, (700, 1, 9), (32896, 32896, 32896)),
        "rgb": (8, 2, (70, 1, 2), (128, 128, 128)),
    }[kind]
    pixels = np.array([[left, right]] * 2)
    packed = {1: b"\x80", 4: b"\x78"}.get(depth)
    row = packed or pixels[0].astype(">u2" if depth == 16 else np.uint8).tobytes()
    header = struct.pack(">IIBBBBB", 2, 2, depth, colours, 0, 0, 0)
    clear = [png_chunk(b"tRNS", struct.pack(f">{len(left)}H", *left))] if colours in (0, 2) else []
    body = [png_chunk(b"IHDR", header), *clear, png_chunk(b"IDAT", zlib.compress((b"\0" + row) * 2))]
    rgb = rgb_of(b"\x89PNG\r\n\x1a\n" + b"".join(body) + png_chunk(b"IEND", b""))
    np.testing.assert_array_equal(rgb[0, 0], [255, 255, 255])
    np.testing.assert_array_equal(rgb[0, 1], [{1: 0, 4: 136}.get(depth, 128)] * 3)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_a_picture_of_pillow_is_taken_in_any_mode(mode: str) -> None:
    grey = Image.fromarray(np.repeat(gradient()[..., :1], 3, axis=2))
    image = grey.convert("RGBA" if mode in ("RGBa", "PA") else "LA" if mode == "La" else "RGB")
    image = image.quantize(64) if mode == "P" else image.convert(mode)
    decoded = decode_picture(image)
    assert isinstance(decoded, Decoded)
    tolerance = 255 if mode == "1" else 6
    np.testing.assert_allclose(decoded.rgb.astype(int), np.asarray(grey).astype(int), atol=tolerance)


def test_16_bits_of_other_byte_orders_are_read() -> None:
    levels = np.array([[0, 257, 32896, 65535]] * 4, dtype=np.uint16)
    big = Image.frombytes("I;16B", (4, 4), levels.astype(">u2").tobytes())
    for image in (big, Image.fromarray(levels), Image.fromarray(levels.astype(np.int32))):
        decoded = decode_picture(image)
        assert isinstance(decoded, Decoded)
        np.testing.assert_array_equal(decoded.rgb[0, :, 0], [0, 1, 128, 255])
    assert rgb_of(encoded(big, "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("bits", "photometric", "data", "seen"),
    [
        (16, 1, struct.pack("<2H", 0, 65535), [0, 255]),
        (16, 0, struct.pack("<2H", 0, 65535), [255, 0]),  # white is zero
        (8, 0, bytes([0, 255]), [255, 0]),
        (12, 1, bytes([0, 0x0F, 0xFF]), [0, 255]),
    ],
)
def test_grey_of_a_tiff_is_seen_as_its_tags_say(bits: int, photometric: int, data: bytes, seen: list[int]) -> None:
    assert rgb_of(grey_tiff(bits, photometric, data))[0, :, 0].tolist() == seen


def test_a_tiff_of_a_rare_kind_is_no_damage() -> None:
    rejected = decode_image(grey_tiff(16, 1, bytes(8), samples=2))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "this kind of TIFF is not read"


def grey_tiff(bits: int, photometric: int, data: bytes, samples: int = 1) -> bytes:
    """2 x 1 pixels."""
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8 + 2 + 10 * 12 + 4, 277: samples, 278: 1}
    tags |= {279: len(data), 339: 1}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def test_an_unreadable_file_is_rejected(tmp_path: Path) -> None:
    rejected = read_image(tmp_path / "gone.png")
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "unreadable"


def test_floating_point_pixels_are_rejected() -> None:
    data = encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
    assert decode_image(data).reason == "unsupported pixels"
