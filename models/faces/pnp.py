"""The camera of a cropped portrait from its landmarks: perspective-n-point against a canonical face."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from models.faces.alignment import FOCAL, RADIUS, STANDARD_FACE, Array

TARGET = np.array([0.0, 0.0, 0.2])

# EG3D's preprocessing takes the cameras of the standard face to its world: times 0.27, then moved.
UNIT, OFFSET = 0.27, np.array([0.0, 0.006, 0.161])

# Priors on the camera, as standard deviations: subjects look at the camera (radians); a crop is upright and
# its face has the usual size.
YAW_SIGMA, PITCH_SIGMA = 0.6, 0.3
TURN_SIGMA = np.array([0.03, 0.03, 0.05])
SIZE_SIGMA = 0.1
POSE = 6  # numbers of a camera; see `_pose` and `_project`


class Face(NamedTuple):
    """Small morphable model of N landmarks (Blanz and Vetter 1999)."""

    mean: Array  # (N, 3) world
    modes: Array  # (K, N, 3) world: how faces differ from the mean, a standard deviation each, independent
    sigma: float  # crop sides: what modes leave unsaid, and how far a detector errs
    gain: tuple[float, float] = (1.0, 1.0)  # of yaw and pitch: how much more a head is turned than its points say


class Fit(NamedTuple):
    """label (25,): location of norm 2.7, EG3D's intrinsics.  reprojection: of the mean face, rms, crop sides."""

    label: Array
    reprojection: float


def fit_camera(points: ArrayLike, face: Face) -> Fit:
    """Fit the most likely camera for a face at `points`, together with the face's shape.

    points: (N, 2) in [0, 1] of the crop, x right, y down. The face's size is free, so that a small head is not taken
    for a turned one; the label has EG3D's focal length and radius nevertheless.
    """
    seen = np.asarray(points, dtype=np.float64)

    def misfit(state: Array) -> Array:
        shape = face.mean + np.tensordot(state[POSE:], face.modes, 1)
        return (_project(state[:POSE], shape) - seen) / face.sigma

    def residuals(state: Array) -> Array:
        prior = [
            state[0] / YAW_SIGMA,
            state[1] / PITCH_SIGMA,
            *(state[2:5] / TURN_SIGMA),
            state[5] / SIZE_SIGMA,
            *state[POSE:],
        ]
        return np.concatenate([misfit(state).ravel(), prior])

    state = least_squares(residuals, np.zeros(POSE + len(face.modes)), method="lm").x
    # Error of the mean face: a shape stretched far enough fits any landmarks.
    error = float(np.sqrt(((_project(state[:POSE], face.mean) - seen) ** 2).sum(axis=1).mean()))
    state[:2] *= face.gain
    return Fit(_label(state[:POSE]), error)


def frontal_label() -> Array:
    """(25,) of the frontal EG3D camera."""
    return _label(np.zeros(6))


def _label(state: Array) -> Array:
    cam2world = np.eye(4)
    cam2world[:3, :3], cam2world[:3, 3] = _pose(state)
    return np.concatenate([cam2world.ravel(), [FOCAL, 0.0, 0.5, 0.0, FOCAL, 0.5, 0.0, 0.0, 1.0]])


def _pose(state: Array) -> tuple[Array, Array]:
    """Rotation (3, 3) and position (3,) of a state: yaw, pitch, a turn (3,) about the camera's own axes, log size."""
    yaw, pitch = state[:2]
    position = RADIUS * np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    forward = (TARGET - position) / np.linalg.norm(TARGET - position)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    look_at = np.stack([right, np.cross(forward, right), forward], axis=1)
    return look_at @ Rotation.from_rotvec(state[2:5]).as_matrix(), position


def _project(state: Array, points: Array) -> Array:
    """World points (N, 3) to the crop (N, 2)."""
    rotation, position = _pose(state)
    seen = (points - position) @ rotation
    return 0.5 + FOCAL * np.exp(state[5]) * seen[:, :2] / seen[:, 2:]


def canonical_face(world: str) -> Face:
    """Return the face of the procedural heads ("embedded") or of real ones ("paper"; only their mean is known)."""
    if world != "embedded":
        return Face(OFFSET + UNIT * STANDARD_FACE, np.zeros((0, 5, 3)), sigma=0.012)
    from models.procedural import CANONICAL_LANDMARKS, LANDMARK_MODES

    mean, modes = (each.numpy().astype(np.float64) for each in (CANONICAL_LANDMARKS, LANDMARK_MODES))
    return Face(mean, modes, sigma=0.004)
