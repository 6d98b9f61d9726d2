"""468 landmarks of a face by Face Mesh (Kartynnik et al. 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from models.faces.alignment import Array, apply_affine, invert_affine
from models.faces.tflite import TfliteNetwork

INPUT_PX = 192
POINTS, SURE = "conv2d_21", "conv2d_31"  # outputs
MARGIN = 1.5  # side of the square that the network sees, of the face's box
PASSES = 4  # at most; two where the detector's eyes are right
UPRIGHT = np.deg2rad(5)  # turn between two passes from which a third is worth its time
LEFT_CORNER, RIGHT_CORNER = 33, 263  # outer corners of the eyes: their line is the face's roll


class Mesh(NamedTuple):
    """Landmarks (468, 3): x and y px of the picture, z in the same unit, smaller towards the viewer.

    sure: in [0, 1], whether a face was seen.
    """

    points: Array
    sure: float


class FaceMesh:
    """MediaPipe's face landmark network."""

    def __init__(self, file: Path) -> None:
        """Load `face_landmark.tflite`."""
        self.network = TfliteNetwork(file)

    def locate(self, rgb: np.ndarray, box: Array, eyes: Array) -> Mesh:
        """Find the landmarks of the face in a box, then again in the square that they span, until that is upright.

        rgb: (H, W, 3) uint8.  box: (4,) px, left, top, right, bottom.  eyes: (2, 2) px, left one of an upright face
        first.
        """
        corners, along = box.reshape(2, 2), eyes[1] - eyes[0]
        for number in range(PASSES):
            mesh = self._see(rgb, _square(corners, along))
            before, corners = along, mesh.points[:, :2]
            along = corners[RIGHT_CORNER] - corners[LEFT_CORNER]
            if number > 0 and _angle(before, along) < UPRIGHT:
                break
        return mesh

    def _see(self, rgb: np.ndarray, square: Array) -> Mesh:
        """Landmarks in a square: an affine (2, 3), px -> [0, 1]."""
        pixels = sample(rgb, square, INPUT_PX).astype(np.float32) / 255
        points, logit = self.network.run(pixels, (POINTS, SURE))
        seen = points.reshape(-1, 3).astype(np.float64) / INPUT_PX
        places = apply_affine(invert_affine(square), seen[:, :2])
        depth = seen[:, 2:] / np.hypot(*square[0, :2])
        return Mesh(np.concatenate([places, depth], axis=1), float(1 / (1 + np.exp(-float(logit.ravel()[0])))))


def sample(rgb: np.ndarray, square: Array, size: int) -> np.ndarray:
    """Cut a square (2, 3), px -> [0, 1], out of a picture (H, W, 3) uint8; past its rim is black.

    Returns (size, size, 3) uint8, antialiased.
    """
    side = 1 / float(np.hypot(*square[0, :2]))
    corners = apply_affine(invert_affine(square), [[0, 0], [1, 0], [0, 1], [1, 1]])
    limit = np.array([rgb.shape[1], rgb.shape[0]])
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, limit - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, low + 1, limit)
    part, matrix = rgb[low[1] : high[1], low[0] : high[0]], square.copy()
    matrix[:, 2] += matrix[:, :2] @ low
    shrink = side / size
    if shrink > 1:
        width, height = (max(1, round(length / shrink)) for length in (part.shape[1], part.shape[0]))
        ratio = np.array([part.shape[1] / width, part.shape[0] / height])
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= ratio
    matrix *= size
    # OpenCV has whole coordinates in the middles of pixels.
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    cut: np.ndarray = cv2.warpAffine(part, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return cut


def _square(points: Array, along: Array) -> Array:
    """The square (2, 3), px -> [0, 1], around points (N, 2), with its x axis along a vector (2,)."""
    x_axis = along / max(float(np.hypot(*along)), 1e-9)
    axes = np.stack([x_axis, [-x_axis[1], x_axis[0]]])
    turned = points @ axes.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    side = MARGIN * float((high - low).max())
    return np.concatenate([axes, (side / 2 - (low + high) / 2)[:, None]], axis=1) / side


def _angle(first: Array, second: Array) -> float:
    """Angle between two vectors (2,), radians."""
    return abs(float(np.arctan2(first[0] * second[1] - first[1] * second[0], first @ second)))
