"""Faces of a photograph as portraits: which of them are taken, and why the others are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_catalog.config.settings import PROCEDURAL, AlignSettings, Settings
from tasks.sources.cropping import SeveralFaces, Unusable

if TYPE_CHECKING:
    from models.faces.photo_faces import PhotoFace, PhotoFaces, Pose

DETECTOR = "faces"  # registry's name of the detector of photographs
HEADS_ONLY = (
    "photographs in the embedded world: they are aligned, exported and measured for real, but edited by networks that "
    "know procedural heads only"
)
SHARP_PX = 256  # side at most of the face's picture whose blur is measured
EDGE_PX = 11  # reach of the blur that a sharp picture changes under (Crete et al. 2007)
INSIDE = 0.85  # least share of a face's landmarks inside the picture


class Portrayed(NamedTuple):
    """Face of a photograph that makes a portrait.  blur: 0 sharp, 1 blurred."""

    face: PhotoFace
    pose: Pose
    blur: float


def detector_name(settings: Settings) -> str:
    """Name of the network that finds these faces: the embedded world's own knows procedural heads only."""
    return "landmarks" if settings.world == "paper" or settings.portraits.source == PROCEDURAL else DETECTOR


def beyond_networks(world: str, source: str) -> bool:
    """Whether portraits are photographs, and the networks of the world know procedural heads only.

    source: `portraits.source`.
    """
    return world == "embedded" and source != PROCEDURAL


def kind_of_faces(settings: Settings) -> str:
    """Return the world whose framing and mean face are those of the portraits' faces: photographs have the paper's."""
    return "paper" if detector_name(settings) == DETECTOR else settings.world


def looks_for_faces(settings: Settings) -> bool:
    """Whether faces are looked for, and pictures do not count as aligned."""
    return settings.portraits.source == PROCEDURAL or settings.align.faces != "aligned"


def choose_faces(found: list[PhotoFace], settings: AlignSettings) -> list[PhotoFace]:
    """Choose the faces of a photograph that `align.faces` asks for. Raises Unusable with the reason for none."""
    clear = [face for face in found if face.clear]
    if not clear:
        raise Unusable("face not clear: in profile, hidden, or only like a face" if found else "no face found")
    large = [face for face in clear if face.size_px >= settings.min_face_px]
    if not large:
        raise Unusable(f"too small: {clear[0].size_px:.0f} px")
    if settings.faces == "reject" and len(large) > 1:
        raise SeveralFaces(len(large))
    return large if settings.faces == "all" else large[:1]


def portray(detector: PhotoFaces, face: PhotoFace, rgb: np.ndarray, settings: AlignSettings) -> Portrayed:
    """Fit the camera of a face in a picture (H, W, 3) uint8. Raises Unusable where it makes no portrait."""
    places = face.points[:, :2]
    inside = float(((places >= 0) & (places <= [rgb.shape[1], rgb.shape[0]])).all(axis=1).mean())
    if inside < INSIDE:
        raise Unusable(f"cut off: {inside:.0%} of the face is in the picture")
    try:
        pose = detector.pose(face)
    except ValueError as error:
        raise Unusable(f"unusable landmarks: {error}") from None
    if pose.residual > settings.max_reprojection:
        raise Unusable(f"landmarks are not those of a face: {pose.residual:.3f} crop sides off")
    blur = measure_blur(rgb, pose.crop)
    if blur > settings.max_blur:
        raise Unusable(f"blurred: {blur:.2f} of 1")
    return Portrayed(face, pose, blur)


def measure_blur(rgb: np.ndarray, crop: np.ndarray) -> float:
    """Blur of the middle of a crop (2, 3), px -> [0, 1], from 0 (sharp) to 1 (Crete et al. 2007).

    It is measured at the picture's own resolution, up to 256 px, so that a small face is not a blurred one.
    """
    import cv2
    from skimage.measure import blur_effect

    from models.faces.face_mesh import sample

    middle = crop * 2
    middle[:, 2] -= 0.5
    side = 1 / float(np.hypot(*middle[0, :2]))
    picture = sample(rgb, middle, int(np.clip(side, 32, SHARP_PX)))
    return float(blur_effect(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), h_size=EDGE_PX))
