"""Cutting the crop of a portrait out of its picture."""

from __future__ import annotations

import numpy as np

from models.faces import alignment

SAME_SHAPE = 0.01  # largest relative difference between the aspects of an edit and its portrait
VISIBLE = 0.5  # least part of a crop's area inside the picture

REACH_PX = 4  # px of the shrunk picture that the interpolation needs around a crop


class Unusable(Exception):
    """A portrait that cannot be aligned; the message is its reason, the part before a colon is counted."""


class SeveralFaces(Unusable):
    """A picture with several faces, of which one has to be chosen."""

    def __init__(self, faces: int) -> None:
        super().__init__(f"several faces: {faces} were found")
        self.faces = faces


def middle_square(size: tuple[int, int]) -> np.ndarray:
    """(2, 3) raw px -> [0, 1] of the largest square in the middle of a picture.  size: (width, height)."""
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return np.array([[1 / side, 0.0, -left / side], [0.0, 1 / side, -top / side]])


def cut(rgb: np.ndarray, crop: np.ndarray, size: int) -> np.ndarray:
    """Cut the crop (size, size, 3) uint8 from a picture (H, W, 3) uint8, antialiased; past its rim the rim repeats."""
    from PIL import Image

    inverse = alignment.invert_affine(crop)
    _check_inside(inverse, (rgb.shape[1], rgb.shape[0]))
    side_px = float(np.hypot(*inverse[:, 0]))
    if abs(inverse[1, 0]) < 1e-9 and _holds(inverse, side_px, rgb):
        # Upright and inside: a plain resize, which leaves a picture of the right size as it is.
        left, top = inverse[:, 2]
        box = (left, top, min(left + side_px, rgb.shape[1]), min(top + side_px, rgb.shape[0]))
        return np.array(Image.fromarray(rgb).resize((size, size), Image.Resampling.LANCZOS, box=box))
    margin = int(np.ceil(side_px)) + 2
    corners = alignment.apply_affine(inverse, [[0, 0], [1, 0], [0, 1], [1, 1]])
    low, high = np.floor(corners.min(axis=0)).astype(int) - 2, np.ceil(corners.max(axis=0)).astype(int) + 2
    before = np.clip(-low, 0, margin)
    after = np.clip(high - [rgb.shape[1], rgb.shape[0]], 0, margin)
    # Shrink by a whole number first, then average twice the pixels: no pixel of the picture is left out.
    shrink = max(1, int(side_px // size))
    # The part around the crop, from a place that shrinks to a whole pixel: the picture may be much larger.
    reach = REACH_PX * shrink
    start = np.maximum(low - reach, 0) // shrink * shrink * (before == 0)
    part = rgb[start[1] : max(high[1] + reach, 1), start[0] : max(high[0] + reach, 1)]
    padded = np.pad(part, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    image = Image.fromarray(padded)
    image = image.reduce(shrink) if shrink > 1 else image
    inverse[:, 2] += before - start
    matrix = inverse / shrink
    matrix[:, :2] /= 2 * size
    wide = image.transform(
        (2 * size, 2 * size), Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BICUBIC
    )
    return np.array(wide.reduce(2), dtype=np.uint8)


def cut_edit(edited: np.ndarray, crop: np.ndarray, shape: tuple[int, ...], size: int) -> np.ndarray:
    """Cut from an edit (H, W, 3) uint8 of any resolution what `crop` cuts from its portrait.

    crop: (2, 3) px of the portrait -> [0, 1].  shape: (height, width, ...) of the portrait.
    """
    ratios = np.array([shape[1] / edited.shape[1], shape[0] / edited.shape[0]])  # its px for one of the edit
    if abs(ratios[0] / ratios[1] - 1) > SAME_SHAPE:
        raise Unusable("not of its portrait's shape")
    return cut(edited, crop * [*ratios, 1.0], size)


def _holds(inverse: np.ndarray, side_px: float, rgb: np.ndarray) -> bool:
    low, high = inverse[:, 2], inverse[:, 2] + side_px
    return bool((low >= 0).all() and (high <= np.array([rgb.shape[1], rgb.shape[0]]) + 1e-6).all())


def _check_inside(inverse: np.ndarray, size: tuple[int, int]) -> None:
    grid = (np.stack(np.meshgrid(np.arange(16), np.arange(16)), axis=-1).reshape(-1, 2) + 0.5) / 16
    raw = alignment.apply_affine(inverse, grid)
    visible = float(((raw >= 0) & (raw <= np.array(size))).all(axis=1).mean())
    if visible < VISIBLE:
        raise Unusable(f"the crop lies outside the picture: {visible:.0%} of it is visible")
