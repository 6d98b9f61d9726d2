"""Drawings of found faces: crops and landmarks in a photograph, landmarks and head axes in a portrait."""

from __future__ import annotations

import cv2
import numpy as np

from models.faces import alignment
from models.faces.alignment import Array
from models.faces.pnp import OFFSET

PHOTOGRAPH_PX, PORTRAIT_PX = 320, 192  # longer side of a drawn photograph, side of a drawn portrait
TAKEN, LEFT_OUT, POINT = (40, 200, 90), (230, 70, 50), (255, 235, 90)
AXES = (((1, 0, 0), (235, 70, 60)), ((0, 1, 0), (70, 190, 80)), ((0, 0, 1), (70, 120, 245)))  # direction, colour
AXIS = 0.35  # length, world units
ORIGIN = np.array([0.0, 0.0, 0.3]) + OFFSET * [0, 1, 0]  # between the eyes and the nose tip, world


def draw_photograph(rgb: np.ndarray, crops: list[tuple[Array, bool]]) -> np.ndarray:
    """Draw the crops in a photograph (H, W, 3) uint8, smaller.  crops: affines (2, 3), px -> [0, 1], and if taken."""
    scale = min(1.0, PHOTOGRAPH_PX / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    step = max(1, int(1 / scale) // 4)  # a drawing needs no more pixels than these
    picture = cv2.resize(rgb[::step, ::step], size, interpolation=cv2.INTER_AREA)
    for number, (crop, taken) in enumerate(crops, start=1):
        corners = alignment.apply_affine(alignment.invert_affine(crop), [[0, 0], [1, 0], [1, 1], [0, 1]]) * scale
        colour = TAKEN if taken else LEFT_OUT
        cv2.polylines(picture, [np.rint(corners).astype(np.int32)], True, colour, 2, cv2.LINE_AA)
        if len(crops) > 1:
            place = tuple(int(value) for value in corners[3] + [4, -4])
            cv2.putText(picture, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 2, cv2.LINE_AA)
    return picture


def draw_portrait(portrait: np.ndarray, points: Array, camera: Array) -> np.ndarray:
    """Draw landmarks and the head's axes into a portrait (S, S, 3) uint8, at 192 px.

    points: (N, 2) in [0, 1].  camera: label (25,).  Axes: x red, y green, z (where the face looks) blue.
    """
    picture = cv2.resize(portrait, (PORTRAIT_PX, PORTRAIT_PX), interpolation=cv2.INTER_AREA)
    for point in points * PORTRAIT_PX:
        cv2.circle(picture, _pixel(point), 1, POINT, -1, cv2.LINE_AA)
    ends = [ORIGIN, *(ORIGIN + AXIS * np.array(direction) for direction, _ in AXES)]
    start, *tips = _project(np.stack(ends), camera) * PORTRAIT_PX
    for tip, (_, colour) in zip(tips, AXES, strict=True):
        cv2.arrowedLine(picture, _pixel(start), _pixel(tip), colour, 2, cv2.LINE_AA, tipLength=0.2)
    return picture


def _project(points: Array, camera: Array) -> Array:
    """World points (N, 3) in the picture of a label (25,): (N, 2) in [0, 1]."""
    cam2world, intrinsics = camera[:16].reshape(4, 4), camera[16:].reshape(3, 3)
    seen = (points - cam2world[:3, 3]) @ cam2world[:3, :3] @ intrinsics.T
    return np.asarray(seen[:, :2] / seen[:, 2:])


def _pixel(point: Array) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
