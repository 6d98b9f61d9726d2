"""Pictures for a page: strips of equal cells, depths in colour, all as data URIs."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from data_catalog.samples.encoding import encode_png

THUMBNAIL_PX = 192  # longest side
MAX_CELL_PX = 192  # pixels; larger pictures would only make the page heavy
WEBP_QUALITY = 92

log = logging.getLogger(__name__)


def make_strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """pictures: (H, W, 3) uint8 of any sizes.  Returns them side by side in square cells, (S, N*S, 3) uint8."""
    side = min(MAX_CELL_PX, max(picture.shape[0] for picture in pictures))
    return np.concatenate([fit_cell(picture, side) for picture in pictures], axis=1)


def fit_cell(picture: np.ndarray, side: int) -> np.ndarray:
    """picture: (H, W, 3) uint8, square or nearly.  Returns (side, side, 3) uint8."""
    if picture.shape[:2] == (side, side):
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def colour_depth(depth: np.ndarray) -> np.ndarray:
    """depth: (h, w), world units along the ray.  Returns (h, w, 3) uint8: near is bright, far is dark."""
    import cv2

    known = depth[np.isfinite(depth)]
    near, far = np.quantile(known, [0.02, 0.98]) if known.size else (0.0, 1.0)
    nearness = np.clip((far - np.nan_to_num(depth, posinf=far, nan=far)) / max(far - near, 1e-6), 0, 1)
    colours = cv2.applyColorMap((nearness * 255).astype(np.uint8), cv2.COLORMAP_MAGMA)
    rgb: np.ndarray = cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)
    return rgb


def embed_picture(picture: np.ndarray) -> str:
    """A data URI of a picture (H, W, 3) uint8."""
    return data_uri(encode_webp(picture))


def thumbnail(draw: Callable[[], np.ndarray]) -> bytes | None:
    """Return a small PNG of a picture (H, W, 3) uint8 for a notebook; None where it cannot be drawn."""
    try:
        picture = draw()
        scale = min(1.0, THUMBNAIL_PX / max(picture.shape[:2]))
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        shown = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
        return encode_png(np.asarray(shown))
    except Exception as error:  # a notebook that shows a value must not stop for its picture
        log.warning("there is no picture of it: %s: %s", type(error).__name__, error)
        return None


def encode_webp(picture: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as WebP."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=WEBP_QUALITY, method=4)
    return buffer.getvalue()


def data_uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
