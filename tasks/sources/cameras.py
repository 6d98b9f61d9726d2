"""Check of a camera that came with a portrait: can it have taken the picture of a head?

Conventions are those of `models.camera`: OpenCV axes, intrinsics by the picture's size, the head in [-0.5, 0.5]^3 and
its face towards +z. The ranges are wide about EG3D's own: focal length 4.26, distance 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.faces.alignment import FOCAL, RADIUS, Array

LABEL_SIZE = 25
FOCALS = (1.0, 10.0)  # of a picture's side
CENTRES = (0.2, 0.8)  # of a picture's side
# World units; for a reconstruction, what Deep3DFaceRecon's renderer shows: 5 to 15 units of its own.
DISTANCES = (RADIUS / 2, RADIUS * 2)
UPRIGHT = 0.2  # least cosine between the camera's down and the world's
STEEP = 0.9  # greatest sine of its elevation
TOLERANCE = 0.01

FLIPPED = {  # causes, by the signs of the rotation's columns that undo them
    "OpenGL's axes? x right, y down, z forward are expected": (1.0, -1.0, -1.0),
    "PyTorch3D's axes? x right, y down, z forward are expected": (-1.0, -1.0, 1.0),
    "y up and z forward? x right, y down, z forward are expected": (1.0, -1.0, 1.0),
    "a mirrored x axis? x right, y down, z forward are expected": (-1.0, 1.0, 1.0),
}


def find_fault(label: Sequence[float]) -> str:
    """Name the first thing about a label (25 numbers) that cannot be, with the likely cause; "" where all can."""
    try:
        values = np.asarray(label, dtype=np.float64).ravel()
    except (ValueError, TypeError):
        return f"{LABEL_SIZE} finite numbers are expected"
    if len(values) != LABEL_SIZE or not np.isfinite(values).all():
        return (
            f"{LABEL_SIZE} finite numbers are expected, found {np.count_nonzero(np.isfinite(values))} of {len(values)}"
        )
    cam2world, intrinsics = values[:16].reshape(4, 4), values[16:].reshape(3, 3)
    fault = _of_pose(cam2world, intrinsics) or _of_intrinsics(intrinsics) or _of_view(cam2world, intrinsics)
    if not fault:
        return ""
    cause = _find_cause(cam2world, intrinsics)
    return f"{fault} ({cause})" if cause else fault


def check_reconstruction(pose: Array) -> None:
    """Raise ValueError where a reconstruction's pose (4, 4), its location unscaled, is no camera before a face."""
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"a finite 4x4 matrix is expected, got {pose.shape}")
    intrinsics = np.array([[FOCAL, 0.0, 0.5], [0.0, FOCAL, 0.5], [0.0, 0.0, 1.0]])
    fault = find_fault([*pose.ravel(), *intrinsics.ravel()])
    if fault:
        raise ValueError(fault)


def _of_pose(cam2world: Array, intrinsics: Array) -> str:
    rotation = cam2world[:3, :3]
    if np.abs(cam2world[3] - [0.0, 0.0, 0.0, 1.0]).max() > TOLERANCE:
        return f"the last row of its 4x4 matrix is {_numbers(cam2world[3])}, 0 0 0 1 is expected"
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > TOLERANCE:
        return "its 3x3 part is not a rotation"
    if np.linalg.det(rotation) < 0:
        return "its 3x3 part is not a rotation: it mirrors"
    return ""


def _of_intrinsics(intrinsics: Array) -> str:
    focals, centre = np.diag(intrinsics)[:2], intrinsics[:2, 2]
    if not all(FOCALS[0] <= focal <= FOCALS[1] for focal in focals):
        return f"focal length {_numbers(focals)}, about {FOCAL:.2f} picture sides is expected"
    if not all(CENTRES[0] <= place <= CENTRES[1] for place in centre):
        return f"principal point {_numbers(centre)}, about 0.5 0.5 of the picture is expected"
    if np.abs(intrinsics[2] - [0.0, 0.0, 1.0]).max() > TOLERANCE:
        return f"the last row of its intrinsics is {_numbers(intrinsics[2])}, 0 0 1 is expected"
    return ""


def _of_view(cam2world: Array, intrinsics: Array) -> str:
    """Name a fault of where the camera stands and looks; rotation and intrinsics are sound."""
    rotation, place = cam2world[:3, :3], cam2world[:3, 3]
    distance = float(np.linalg.norm(place))
    if not DISTANCES[0] <= distance <= DISTANCES[1]:
        return f"distance {distance:.3g} from the head, about {RADIUS} is expected"
    seen = intrinsics @ (rotation.T @ -place)
    if seen[2] <= 0:
        return "it looks away from the head"
    if not ((seen[:2] >= 0) & (seen[:2] <= seen[2])).all():
        return f"it does not look at the head, whose middle is at {_numbers(seen[:2] / seen[2])} of the picture"
    if rotation[1, 1] > -UPRIGHT:
        return "it is upside down or on its side"
    if abs(place[1]) > STEEP * distance:
        return f"it stands {'above' if place[1] > 0 else 'below'} the head: y up and z towards the face are expected"
    if place[2] < 0:
        return f"it stands behind the head, at z {place[2]:.3g}"
    return ""


def _find_cause(cam2world: Array, intrinsics: Array) -> str:
    """Name the usual mistake whose correction makes the label sound; "" where none does."""

    def is_sound(pose: Array, lens: Array = intrinsics) -> bool:
        return not (_of_pose(pose, lens) or _of_intrinsics(lens) or _of_view(pose, lens))

    width = 2 * intrinsics[0, 2]
    size = np.array([[width], [2 * intrinsics[1, 2]], [1.0]])
    if width > 2 and is_sound(cam2world, np.asarray(intrinsics / size, dtype=np.float64)):
        return f"in pixels? divide it by the picture's size, {width:.0f}"
    if intrinsics[0, 0] > FOCALS[1]:
        return "in pixels, or an angle in degrees? picture sides are expected"
    if is_sound(cam2world.T):
        return "written column by column? rows are expected"
    for cause, signs in FLIPPED.items():
        if is_sound(cam2world @ np.diag([*signs, 1.0])):
            return cause
    if np.abs(np.linalg.det(cam2world)) > TOLERANCE and is_sound(
        np.asarray(np.linalg.inv(cam2world), dtype=np.float64)
    ):
        return "world to camera? camera to world is expected"
    for unit, scale in (("millimetres", 1e-3), ("centimetres", 1e-2), ("units of 10 cm", 0.27)):
        scaled = cam2world.copy()
        scaled[:3, 3] *= scale
        if is_sound(scaled):
            return f"in {unit}? world units are expected, the head fills one"
    return ""


def _numbers(values: Array) -> str:
    return " ".join(f"{value:.4g}" for value in values)
