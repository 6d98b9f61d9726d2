"""A user's picture as an aligned portrait: decoded, cut as by the stage align, with its camera."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.samples.images import Rejected, decode_image, decode_picture, read_image
from models.faces import alignment
from tasks import align
from tasks.pictures.inline import thumbnail
from tasks.sources.photographs import DETECTOR, detector_name, looks_for_faces

if TYPE_CHECKING:
    from models.faces.photo_faces import PhotoFace, PhotoFaces

# A portrait that a user asks for is cut whatever its size and blur.
ANY_FACE = {"min_face_px": 16, "max_blur": 1.0}
SAME_FACE = 0.3  # of a face's size: two detectors that mean the same face differ by less, in practice by 0.1
RENDERED = 5.5  # texture of procedural heads at most; of 78 the largest is 5.0, of 16 photographs the smallest 6.0
ALIGNED_WITHIN = 0.03  # crop sides between the corners of a picture and of its crop; aligned ones stay below 0.01

Picture = str | Path | bytes | np.ndarray | Image.Image

log = logging.getLogger(__name__)


class Detectors(NamedTuple):
    """Detectors of the faces in a user's pictures."""

    own: align.Detector | None  # None: every picture counts as aligned
    photographs: PhotoFaces | None = None  # beside a detector of procedural heads, which knows nothing of other faces


class Portrait(NamedTuple):
    """An aligned portrait. A notebook shows its picture.

    >>> student.align("portrait.png")
    Portrait(64x64 px, camera pnp, cut out)
    """

    rgb: np.ndarray  # (H, W, 3) uint8
    camera: np.ndarray  # (25,) label
    camera_source: str  # mesh, pnp or assumed_frontal
    cropped: bool  # False: the picture was aligned already
    faces: int = 1  # found in the picture: this is the largest
    strange: bool = False  # a photograph, to networks that know procedural heads only

    def __repr__(self) -> str:
        height, width = self.rgb.shape[:2]
        how = "cut out" if self.cropped else "aligned already"
        return f"Portrait({width}x{height} px, camera {self.camera_source}, {how})"

    def _repr_png_(self) -> bytes | None:
        return thumbnail(lambda: self.rgb)


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


def detector_names(settings: Settings) -> tuple[str, ...]:
    """Names of the networks of `find_detectors`."""
    if not looks_for_faces(settings):
        return ()
    own = detector_name(settings)
    return (own,) if own == DETECTOR or settings.world == "paper" else (own, DETECTOR)


def find_detectors(settings: Settings) -> Detectors:
    """Return the detector of the settings' faces and, beside that of procedural heads, that of photographs."""
    from models.zoo import zoo

    further = [zoo.load(name, settings.world) for name in detector_names(settings)[1:]]
    return Detectors(align.find_detector(settings), *further)


def align_picture(rgb: np.ndarray, detectors: Detectors, settings: Settings) -> Portrait:
    """Align a picture (H, W, 3) uint8 unless it is aligned; without a face, its middle square counts as aligned."""
    found, cropped = locate(rgb, detectors, settings)
    portrait = cut_out(rgb, found.crop, settings)
    strange = settings.world == "embedded" and measure_texture(portrait) > RENDERED
    return Portrait(portrait, found.camera, found.camera_source, cropped, found.faces, strange)


def measure_texture(rgb: np.ndarray) -> float:
    """Median strength of the Laplacian of a portrait (H, W, 3) uint8, levels: a photograph has hardly an even place."""
    grey = rgb.mean(axis=2)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.median(np.abs(4 * grey[1:-1, 1:-1] - around)))


def find_crops(rgb: np.ndarray) -> list[np.ndarray]:
    """Crops (2, 3), px -> [0, 1], of every face of a photograph (H, W, 3) uint8, the largest first."""
    from models.zoo import zoo

    detector = zoo.load("faces", "embedded")
    return [detector.pose(face).crop for face in detector.find(rgb) if face.clear]


def locate(rgb: np.ndarray, detectors: Detectors, settings: Settings) -> tuple[align.Aligned, bool]:
    """Return the portrait's place in a picture, with its camera, and whether it is less than the whole.

    Of several faces in a photograph it is the largest; a warning says so.
    """
    size = (rgb.shape[1], rgb.shape[0])
    found = align.assume_frontal(size)
    if detectors.own is not None:
        try:
            found = _find_largest(rgb, detectors.own, detectors.photographs, settings)
        except align.Unusable as reason:
            log.warning("taken as aligned and frontal: %s", reason)
    cropped = not _covers(found.crop, size)
    # A picture that is aligned is not resampled: cutting it once more would only blur it.
    return (found if cropped else found._replace(crop=align.middle_square(size))), cropped


def _find_largest(
    rgb: np.ndarray, detector: align.Detector, photographs: PhotoFaces | None, settings: Settings
) -> align.Aligned:
    if photographs is not None:
        return _find_in_any(rgb, detector, photographs, settings)

    def find(faces: str) -> align.Aligned:
        own = settings.align.model_copy(update=ANY_FACE | {"faces": faces})
        return align.find_face(detector, rgb, settings.model_copy(update={"align": own}))

    try:
        return find("reject")
    except align.SeveralFaces as several:
        return _tell_several(find("largest"), several.faces)


def _find_in_any(
    rgb: np.ndarray, detector: align.Detector, photographs: PhotoFaces, settings: Settings
) -> align.Aligned:
    """Find the face of a picture that may be a procedural head or a photograph, of which this detector knows nothing.

    Where the detector of photographs sees no face at the points that this one found, they are not a face's.
    """
    points, reason = None, align.Unusable("no face found")
    try:
        points = align.detect(detector, rgb, settings)
    except align.Unusable as error:
        reason = error
    faces = [face for face in photographs.find(rgb) if face.clear]
    if faces and (points is None or not any(_is_of(points, face) for face in faces)):
        return _tell_several(align.fit_portrait(faces[0].five, settings), len(faces))
    if points is None:
        raise reason
    return align.fit_portrait(points, settings)


def _is_of(points: np.ndarray, face: PhotoFace) -> bool:
    return bool(np.abs(points - face.five).max() < SAME_FACE * face.size_px)


def _tell_several(found: align.Aligned, faces: int) -> align.Aligned:
    if faces > 1:
        log.warning("%d faces were found: the largest is taken", faces)
    return found._replace(faces=faces)


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
