"""Comparison of a photograph's portrait with its edit, by networks that know real faces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.faces.face_mesh import sample
from models.faces.matting import Matting, change_outside
from models.faces.photo_faces import PhotoFace, PhotoFaces
from models.judges.face_api import FACE_PX, FaceDescriptor

BROWS = (70, 105, 334, 300)  # landmarks; the descriptor learned on boxes from the brows to the chin
MARGIN = 1.2  # side of its picture, of the box's longer side, as face-api cuts it


class Comparison(NamedTuple):
    """faces: clear ones in the edit.  distance: of the two largest faces, see `FaceDescriptor`.  outside: in [0, 1]."""

    faces: int
    distance: float | None  # None where one of the two has no face
    outside: float | None  # None where a person fills the picture


@dataclass(frozen=True)
class PhotoJudges:
    """Detector of faces, matting and face descriptor."""

    detector: PhotoFaces
    matting: Matting
    descriptor: FaceDescriptor

    def compare(self, portrait: np.ndarray, edit: np.ndarray) -> Comparison:
        """portrait, edit: (H, W, 3) uint8."""
        before, after = ([face for face in self.detector.find(rgb) if face.clear] for rgb in (portrait, edit))
        distance = None
        if before and after:
            faces = np.stack([cut_face(portrait, before[0]), cut_face(edit, after[0])])
            first, second = self.descriptor.embed(faces).double().cpu().numpy()
            distance = float(np.linalg.norm(first - second))
        return Comparison(len(after), distance, change_outside(self.matting, portrait, edit))


def cut_face(rgb: np.ndarray, face: PhotoFace) -> np.ndarray:
    """Cut a face out of a picture (H, W, 3) uint8 as the descriptor learned to see it: (150, 150, 3) uint8."""
    left, _, right, bottom = face.box
    top = face.points[list(BROWS), 1].min()
    side = MARGIN * max(right - left, bottom - top)
    middle = np.array([left + right, top + bottom]) / 2
    return sample(rgb, np.column_stack([np.eye(2) / side, 0.5 - middle / side]), FACE_PX)
