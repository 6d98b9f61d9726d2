"""Faces in photographs: found at any size and orientation, with 468 landmarks, EG3D's crop and the camera of each.

BlazeFace finds a face, Face Mesh its landmarks, and the camera is that from which the canonical mesh looks like them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.faces.alignment import (
    EG3D,
    STANDARD_FACE,
    Array,
    apply_affine,
    centred_rotation,
    crop_transform,
)
from models.faces.blazeface import BlazeFace, Detection, overlap
from models.faces.face_mesh import FaceMesh
from models.faces.landmark_layouts import detect_largest, to_five
from models.faces.pnp import OFFSET, UNIT, Face, Fit, fit_camera

DETECTOR, LANDMARKS, MESH = "face_detection_short_range.tflite", "face_landmark.tflite", "canonical_mesh.safetensors"
CLEAR = 0.9  # least sureness of the landmark network: it is 1 on faces, and near 0 on full profiles and on no faces
SAME = 0.5  # share of the smaller of two faces' boxes that lies in the other, from which they are one face
SIGMA = 0.012  # crop sides, that landmarks miss the mesh by

# Face Mesh shows heads less turned than they are. The yaw and the pitch of the fit, times these, are nearest to those
# of rendered heads with known cameras, of other people than those in tests/data (docs/lab/photographs.md).
TURN_GAIN = (1.06, 1.27)


class PhotoFace(NamedTuple):
    """Face in a photograph.

    points: (468, 3), x and y px of the picture, z in the same unit.  score: of the detector.  sure: of the landmarks.
    """

    points: Array
    score: float
    sure: float

    @property
    def clear(self) -> bool:
        """Whether the landmarks can be used: not in full profile, hidden, or no face at all."""
        return self.sure >= CLEAR

    @property
    def box(self) -> Array:
        """Left, top, right, bottom of the landmarks, (4,) px."""
        places = self.points[:, :2]
        return np.concatenate([places.min(axis=0), places.max(axis=0)])

    @property
    def size_px(self) -> float:
        """Longer side of the box, px."""
        return float(np.ptp(self.points[:, :2], axis=0).max())

    @property
    def five(self) -> Array:
        """Eyes, nose tip and mouth corners, (5, 2) px."""
        return to_five(self.points)


class Pose(NamedTuple):
    """Crop and camera of a face.  crop: (2, 3) px -> [0, 1].  camera: label (25,).  residual: rms, crop sides."""

    crop: Array
    camera: Array
    residual: float

    @property
    def yaw_pitch_roll_deg(self) -> tuple[float, float, float]:
        """Yaw and pitch of the camera around the head, and the turn of the face in the photograph; degrees."""
        forward = centred_rotation(self.camera)[:, 2]
        yaw, pitch = np.arctan2(-forward[0], -forward[2]), np.arcsin(np.clip(-forward[1], -1, 1))
        roll = -np.arctan2(self.crop[0, 1], self.crop[0, 0])
        return float(np.rad2deg(yaw)), float(np.rad2deg(pitch)), float(np.rad2deg(roll))


class PhotoFaces:
    """Detector of faces in photographs, with the interface of `landmarks.LandmarkNet`."""

    def __init__(self, folder: Path) -> None:
        """Load the networks of `models/weights/photo/faces`."""
        mesh = canonical_mesh(folder / MESH)
        self.face = Face(OFFSET + UNIT * mesh, np.zeros((0, *mesh.shape)), SIGMA, TURN_GAIN)
        self.detector, self.landmarks, self.path = BlazeFace(folder / DETECTOR), FaceMesh(folder / LANDMARKS), folder

    def find(self, rgb: np.ndarray) -> list[PhotoFace]:
        """Find every face of a picture (H, W, 3) uint8: the clear ones first, and the largest of these.

        The smallest ones are found upright only, unless there is no other.
        """
        faces = self._keep(rgb, self.detector.find(rgb))
        return faces if any(face.clear for face in faces) else self._keep(rgb, self.detector.find_turned(rgb), faces)

    def _keep(self, rgb: np.ndarray, found: list[Detection], others: Sequence[PhotoFace] = ()) -> list[PhotoFace]:
        """Faces of detections, with others: where two lie on each other, the clearer one, then the better one."""
        faces = list(others)
        for seen in found:
            if any(face.clear and overlap(seen.box, face.box) >= SAME for face in faces):
                continue  # found in another orientation with a better score
            mesh = self.landmarks.locate(rgb, seen.box, seen.eyes)
            faces.append(PhotoFace(mesh.points, seen.score, mesh.sure))
        kept: list[PhotoFace] = []
        for face in sorted(faces, key=lambda face: (not face.clear, -face.score)):
            if all(overlap(face.box, other.box) < SAME for other in kept):
                kept.append(face)
        return sorted(kept, key=lambda face: (not face.clear, -face.size_px))

    def pose(self, face: PhotoFace) -> Pose:
        """Fit the camera of a face by all its landmarks. Raises ValueError where they span no face."""
        crop = crop_transform(face.five, EG3D)
        fit = fit_camera(apply_affine(crop, face.points[:, :2]), self.face)
        return Pose(crop, fit.label, fit.reprojection)

    def camera(self, rgb: np.ndarray) -> Fit | None:
        """The camera of a whole aligned portrait (S, S, 3) uint8, by its largest face; None without a clear one."""
        found = self.faces(rgb)
        return fit_camera(found[0] / [rgb.shape[1], rgb.shape[0]], self.face) if found else None

    def faces(self, rgb: np.ndarray) -> list[Array]:
        """Landmarks (468, 2), px, of every clear face in a picture (H, W, 3) uint8, the largest first."""
        return [face.points[:, :2] for face in self.find(rgb) if face.clear]

    def detect(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `landmark_layouts.detect_largest`."""
        return detect_largest(self.faces, images)


def canonical_mesh(file: Path) -> Array:
    """The canonical face (468, 3) in the standard face's frame and unit: x right, y up, z towards the camera.

    The similarity between the two frames is that of their five points (Umeyama 1991), a constant of the two faces.
    """
    from safetensors.numpy import load_file

    vertices = load_file(file)["vertices"].astype(np.float64)
    depth = to_five(np.stack([vertices[:, 2], vertices[:, 2]], axis=1))[:, :1]
    five = np.concatenate([to_five(vertices[:, :2]), depth], axis=1)
    middle, target = five.mean(axis=0), STANDARD_FACE.mean(axis=0)
    u, stretch, vt = np.linalg.svd((STANDARD_FACE - target).T @ (five - middle))
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = float((stretch * sign).sum() / ((five - middle) ** 2).sum())
    return target + scale * (vertices - middle) @ ((u * sign) @ vt).T
