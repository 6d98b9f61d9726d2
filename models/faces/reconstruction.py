"""The camera of a portrait from a Deep3DFaceRecon result, as EG3D's preprocessing finds it.

The reconstruction turns the standard face by three angles and moves it before a camera 10 units away; EG3D keeps
the face and moves the camera. Its label has EG3D's intrinsics and a location of norm 2.7 whatever the real distance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from models.faces.alignment import FOCAL, RADIUS, Array, roll
from models.faces.pnp import OFFSET, UNIT

DISTANCE = 10.0  # distance of the reconstruction's camera, in the standard face's unit
OPENCV_AXES = np.diag([1.0, -1.0, -1.0])  # from x right, y up, z back to x right, y down, z forward


def camera_pose(angles: ArrayLike, translation: ArrayLike) -> Array:
    """cam2world (4, 4) in EG3D's world.  angles: (3,) rad, about x, y, z.  translation: (3,) in the face's unit."""
    x, y, z = np.asarray(angles, dtype=np.float64)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    to_world = (about_z @ about_y @ about_x).T
    pose = np.eye(4)
    pose[:3, :3] = to_world @ OPENCV_AXES
    pose[:3, 3] = OFFSET + UNIT * to_world @ (np.array([0.0, 0.0, DISTANCE]) - np.asarray(translation, np.float64))
    return pose


def pose_label(pose: ArrayLike, crop: ArrayLike | None = None) -> Array:
    """Return the label (25,) of a pose (4, 4): location of norm 2.7, EG3D's intrinsics.

    crop: affine (2, 3) of the picture that is labelled, where that is turned against the one reconstructed.
    Raises ValueError when the pose is none.
    """
    matrix = np.array(pose, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"a finite 4x4 matrix is expected, got {matrix.shape}")
    rotation, location = matrix[:3, :3], float(np.linalg.norm(matrix[:3, 3]))
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 0.01 or np.linalg.det(rotation) < 0 or location < 1e-6:
        raise ValueError("its 3x3 part is not a rotation, or it has no place")
    matrix[:3, 3] *= RADIUS / location
    if crop is not None:
        matrix[:3, :3] = rotation @ roll(crop).T
    return np.concatenate([matrix.ravel(), [FOCAL, 0.0, 0.5, 0.0, FOCAL, 0.5, 0.0, 0.0, 1.0]])
