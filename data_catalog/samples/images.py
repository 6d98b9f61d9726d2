"""Decode any picture from a user to RGB uint8, or say why not.

Supported: palette, grey, CMYK and 16-bit pictures (scaled to 8 bits), EXIF rotation (applied), alpha
(composited on white), a wrong file suffix (the content decides). An animation gives its first frame.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Formats that Pillow decodes itself: others may start a program on the file, as its EPS reader does.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
MAX_PIXELS = 50_000_000
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"GIF8")


@dataclass(frozen=True)
class Decoded:
    """Decoded picture, rgb (H, W, 3) uint8."""

    rgb: np.ndarray


@dataclass(frozen=True)
class Rejected:
    """Rejection of a picture: `reason` is one of a few that are counted, `detail` is for the reader."""

    reason: str
    detail: str = ""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = 1) -> Decoded | Rejected:
    """Decode a picture, or reject it as one of: empty file, not an image, truncated, corrupt, too large, too small,
    unsupported pixels.
    """
    if not data:
        return Rejected("empty file")
    from PIL import Image, ImageOps, UnidentifiedImageError

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
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        return Rejected("too large", str(error))
    except UnidentifiedImageError:
        return Rejected("corrupt" if data.startswith(_MAGIC) else "not an image")
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's readers raise nearly anything on hostile bytes; each is a rejected portrait.
        truncated = "truncated" in str(error).lower() or isinstance(error, EOFError)
        return Rejected("truncated" if truncated else "corrupt", f"{type(error).__name__}: {error}")


def read_image(path: Path, max_pixels: int = MAX_PIXELS, min_side: int = 1) -> Decoded | Rejected:
    """Decode a file's picture as `decode_image` does; an unreadable file is rejected as `unreadable`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Rejected("unreadable", f"{type(error).__name__}: {error.strerror}")
    return decode_image(data, max_pixels, min_side)


def _refuse(image: Image.Image, max_pixels: int, min_side: int) -> Rejected | None:
    width, height = image.size
    if width * height > max_pixels:
        return Rejected("too large", f"{width}x{height} px, at most {max_pixels} pixels are allowed")
    if min(width, height) < min_side:
        return Rejected("too small", f"{width}x{height} px, each side needs {min_side}")
    return None


def _to_rgb(image: Image.Image) -> Decoded | Rejected:
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            return Rejected("unsupported pixels", f"mode {image.mode} beyond 16 bits")
        grey = ((levels + 128) // 257).astype(np.uint8)
        return Decoded(np.repeat(grey[:, :, None], 3, axis=2))
    if image.mode == "F":
        return Rejected("unsupported pixels", "floating-point pixels have no known range")
    if image.mode in ("LA", "PA", "RGBa", "La", "RGBA") or "transparency" in image.info:
        from PIL import Image

        layer = image.convert("RGBA")
        page = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, layer)
    return Decoded(np.array(image.convert("RGB"), dtype=np.uint8))
