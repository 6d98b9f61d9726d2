"""Any picture is read right or rejected with its reason."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_catalog.samples.images import Decoded, Rejected, decode_image, read_image


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
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(gradient())
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(rgb_of(encoded(stored, exif=exif)), gradient())


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "portrait.png"
    path.write_bytes(encoded(Image.fromarray(gradient()), "BMP"))
    decoded = read_image(path)
    assert isinstance(decoded, Decoded)
    np.testing.assert_array_equal(decoded.rgb, gradient())


def test_empty_and_foreign_files_are_rejected() -> None:
    assert decode_image(b"") == Rejected("empty file")
    assert decode_image(b"%PDF-1.7 no picture") == Rejected("not an image")
    assert decode_image(b"<svg></svg>") == Rejected("not an image")
    assert decode_image(b"\x89PNG\r\n\x1a\n") == Rejected("corrupt")


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
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


def test_an_unreadable_file_is_rejected(tmp_path: Path) -> None:
    rejected = read_image(tmp_path / "gone.png")
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "unreadable"


def test_floating_point_pixels_are_rejected() -> None:
    data = encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
    assert decode_image(data).reason == "unsupported pixels"
