"""A user's picture as an aligned portrait: decoded, cut as by the stage align, with its camera."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.samples.images import Rejected, decode_image, decode_picture, read_image
from models.faces import alignment
from tasks import align

ALIGNED_WITHIN = 0.03  # crop sides between the corners of a picture and of its crop; aligned ones stay below 0.01

Picture = str | Path | bytes | np.ndarray | Image.Image

log = logging.getLogger(__name__)


class Portrait(NamedTuple):
    """An aligned portrait."""

    rgb: np.ndarray  # (H, W, 3) uint8
    camera: np.ndarray  # (25,) label
    camera_source: str  # mesh, pnp or assumed_frontal
    cropped: bool  # False: the picture was aligned already


def read_picture(picture: Picture, settings: Settings) -> np.ndarray:
    """A path, the bytes of a file, a PIL image or (H, W, 3) uint8, as (H, W, 3) uint8, sRGB.

    Raises UserError where it cannot be read.
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            found = f"{picture.dtype} {picture.shape}"
            raise UserError("the array is not a picture", expected="uint8 (H, W, 3), RGB", found=found)
        return picture
    name, limit = "the picture", settings.portraits.max_pixels
    if isinstance(picture, Image.Image):
        image = decode_picture(picture, limit)
    elif isinstance(picture, bytes):
        image = decode_image(picture, limit)
    else:
        name, image = str(picture), read_image(Path(picture), limit)
    if isinstance(image, Rejected):
        raise image.as_error(f"{name} cannot be taken as a portrait")
    return image.rgb


def align_picture(rgb: np.ndarray, detector: align.Detector | None, settings: Settings) -> Portrait:
    """Align a picture (H, W, 3) uint8 unless it is aligned; without a face, its middle square counts as aligned."""
    found, cropped = locate(rgb, detector, settings)
    return Portrait(cut_out(rgb, found.crop, settings), found.camera, found.camera_source, cropped)


def locate(rgb: np.ndarray, detector: align.Detector | None, settings: Settings) -> tuple[align.Aligned, bool]:
    """Return the portrait's place in a picture, with its camera, and whether it is less than the whole.

    Of several faces in a photograph it is the largest; a warning says so.
    """
    size = (rgb.shape[1], rgb.shape[0])
    found = align.assume_frontal(size)
    if detector is not None:
        try:
            found = _find_largest(rgb, detector, settings)
        except align.Unusable as reason:
            log.warning("taken as aligned and frontal: %s", reason)
    cropped = not _covers(found.crop, size)
    # A picture that is aligned is not resampled: cutting it once more would only blur it.
    return (found if cropped else found._replace(crop=align.middle_square(size))), cropped


def _find_largest(rgb: np.ndarray, detector: align.Detector, settings: Settings) -> align.Aligned:
    try:
        return align.find_face(detector, rgb, settings)
    except align.SeveralFaces as several:
        log.warning("%s: the largest is taken", several)
        largest = settings.align.model_copy(update={"faces": "largest"})
        return align.find_face(detector, rgb, settings.model_copy(update={"align": largest}))


def cut_out(rgb: np.ndarray, crop: np.ndarray, settings: Settings) -> np.ndarray:
    """Cut a crop at the size of portraits. Raises UserError if it lies outside the picture."""
    try:
        return align.cut(rgb, crop, settings.align.size)
    except align.Unusable as reason:
        raise UserError(f"the portrait cannot be aligned: {reason}") from None


def _covers(crop: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a crop (2, 3) is the whole of a square picture.  size: (width, height)."""
    corners = [[0, 0], [size[0], 0], [0, size[1]], list(size)]
    offset = np.abs(alignment.apply_affine(crop, corners) - [[0, 0], [1, 0], [0, 1], [1, 1]])
    return bool(offset.max() <= ALIGNED_WITHIN)
