"""Bytes of the fields of a sample: PNG, JPEG, npy, JSON, 8-bit triplanes. Equal values give equal bytes."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

TILE = 32  # px, side of a tile of the q8 codec


def _check_rgb(rgb: np.ndarray) -> None:
    assert rgb.dtype == np.uint8, rgb.dtype
    assert (rgb.ndim, rgb.shape[-1]) == (3, 3), rgb.shape


def encode_png(rgb: np.ndarray, level: int = 6) -> bytes:
    """rgb: (H, W, 3) uint8. Lossless.  level: zlib's; 3 takes a third of the time for 7 % more bytes."""
    from PIL import Image

    _check_rgb(rgb)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def encode_jpeg(rgb: np.ndarray, quality: int = 95) -> bytes:
    """rgb: (H, W, 3) uint8. 4:4:4, since Pillow's default of 4:2:0 smears colour edges by up to 85 levels."""
    from PIL import Image

    _check_rgb(rgb)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_rgb(data: bytes) -> np.ndarray:
    """Decode a picture that this project wrote, (H, W, 3) uint8; for others see `images.decode_image`."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"), dtype=np.uint8)


def encode_array(array: np.ndarray) -> bytes:
    """An npy file, little-endian and C-contiguous."""
    buffer = io.BytesIO()
    little = array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype
    np.save(buffer, np.ascontiguousarray(array, dtype=little), allow_pickle=False)
    return buffer.getvalue()


def decode_array(data: bytes) -> np.ndarray:
    """The array of an npy file."""
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def encode_json(value: Any) -> bytes:
    """Sorted keys, one space of indentation, a final newline. A lone surrogate is written as its escape."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")


def decode_field(name: str, data: bytes) -> Any:
    """The value of a field by its suffix: png, jpg (H, W, 3) uint8, npy an array, json a value, or bytes."""
    suffix = name.rsplit(".", 1)[-1]
    if suffix in ("png", "jpg"):
        return decode_rgb(data)
    if suffix == "npy":
        return decode_array(data)
    return json.loads(data) if suffix == "json" else data


def quantise_triplane(triplane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """8 bits per value, affine per tile of 32x32.

    triplane: (C, H, W) float, H and W multiples of 32, finite.  Returns codes (C, H, W) uint8 and tiles
    (2, C, H/32, W/32) float32: scale, then minimum, so that value = code * scale + minimum.
    """
    channels, height, width = triplane.shape
    assert (height % TILE, width % TILE) == (0, 0), (height, width)
    if not np.isfinite(triplane).all():
        raise ValueError("a triplane with inf or nan has no 8-bit form")
    blocks = triplane.astype(np.float32).reshape(channels, height // TILE, TILE, width // TILE, TILE)
    minimum = blocks.min(axis=(2, 4))
    # float32 scales: those of a nearly flat tile underflow in fp16.
    scale = (blocks.max(axis=(2, 4)) - minimum) / np.float32(255)
    safe = np.where(scale > 0, scale, np.float32(1))
    codes = np.rint((blocks - minimum[:, :, None, :, None]) / safe[:, :, None, :, None])
    codes = codes.clip(0, 255).astype(np.uint8).reshape(channels, height, width)
    return codes, np.stack([scale, minimum]).astype(np.float32)


def dequantise_triplane(codes: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """codes: (C, H, W) uint8.  tiles: (2, C, H/32, W/32) float32.  Returns (C, H, W) float32."""
    channels, height, width = codes.shape
    blocks = codes.reshape(channels, height // TILE, TILE, width // TILE, TILE).astype(np.float32)
    scale, minimum = tiles[:, :, :, None, :, None]
    return (blocks * scale + minimum).reshape(channels, height, width)
