"""Check of a camera that came with a portrait: can it have taken the picture of a head?

Conventions are those of `models.camera`: OpenCV axes, intrinsics by the picture's size, the head in [-0.5, 0.5]^3 and
its face towards +z. The ranges are wide about EG3D's own: focal length 4.26, distance 2.7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

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


def find_faults(labels: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Name the first thing about each label (25 numbers) that cannot be, with the likely cause; only of bad ones."""
    faults = {}
    for name, label in labels.items():
        finite = int(np.isfinite(label).sum())
        if len(label) != LABEL_SIZE or finite != LABEL_SIZE:
            faults[name] = f"{LABEL_SIZE} finite numbers are expected, found {finite} of {len(label)}"
    whole = [name for name in labels if name not in faults]
    values = np.array([labels[name] for name in whole], dtype=np.float64).reshape(-1, LABEL_SIZE)
    return faults | {whole[place]: _describe(values[place]) for place in np.flatnonzero(~_are_sound(values))}


def find_fault(label: Sequence[float]) -> str:
    """Name the first thing about a label that cannot be; "" where all can."""
    return find_faults({"": label}).get("", "")


def check_reconstruction(pose: Array) -> None:
    """Raise ValueError where a reconstruction's pose (4, 4), its location unscaled, is no camera before a face."""
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise ValueError(f"a finite 4x4 matrix is expected, got {pose.shape}")
    fault = find_fault([*pose.ravel(), FOCAL, 0.0, 0.5, 0.0, FOCAL, 0.5, 0.0, 0.0, 1.0])
    if fault:
        raise ValueError(fault)


class _Cameras(NamedTuple):
    """Cameras (N) in parts: cam2world, intrinsics, position, its norm, and the head's middle in the picture."""

    poses: Array  # (N, 4, 4)
    lenses: Array  # (N, 3, 3)
    places: Array  # (N, 3) world units
    distances: Array  # (N,)
    seen: Array  # (N, 3): x and y times depth, depth

    @classmethod
    def of(cls, values: Array) -> Self:
        """Values: (N, 25)."""
        poses, lenses = values[:, :16].reshape(-1, 4, 4), values[:, 16:].reshape(-1, 3, 3)
        places = poses[:, :3, 3]
        seen = (lenses @ poses[:, :3, :3].transpose(0, 2, 1) @ -places[:, :, None])[:, :, 0]
        return cls(poses, lenses, places, np.linalg.norm(places, axis=1), seen)


# What cannot be, the first of which is named: a test of all cameras, and the words for one.
FAULTS: tuple[tuple[Callable[[_Cameras], Any], Callable[[_Cameras], str]], ...] = (
    (
        lambda each: np.abs(each.poses[:, 3] - [0.0, 0.0, 0.0, 1.0]).max(axis=1) > TOLERANCE,
        lambda each: f"the last row of its 4x4 matrix is {_numbers(each.poses[0, 3])}, 0 0 0 1 is expected",
    ),
    (lambda each: _skew(each.poses[:, :3, :3]) > TOLERANCE, lambda each: "its 3x3 part is not a rotation"),
    (
        lambda each: np.linalg.det(each.poses[:, :3, :3]) < 0,
        lambda each: "its 3x3 part is not a rotation: it mirrors",
    ),
    (
        lambda each: ~_within(each.lenses[:, [0, 1], [0, 1]], FOCALS),
        lambda each: (
            f"focal length {_numbers(np.diag(each.lenses[0])[:2])}, about {FOCAL:.2f} picture sides is expected"
        ),
    ),
    (
        lambda each: ~_within(each.lenses[:, :2, 2], CENTRES),
        lambda each: f"principal point {_numbers(each.lenses[0, :2, 2])}, about 0.5 0.5 of the picture is expected",
    ),
    (
        lambda each: np.abs(each.lenses[:, 2] - [0.0, 0.0, 1.0]).max(axis=1) > TOLERANCE,
        lambda each: f"the last row of its intrinsics is {_numbers(each.lenses[0, 2])}, 0 0 1 is expected",
    ),
    (
        lambda each: ~_within(each.distances[:, None], DISTANCES),
        lambda each: f"distance {each.distances[0]:.3g} from the head, about {RADIUS} is expected",
    ),
    (lambda each: each.seen[:, 2] <= 0, lambda each: "it looks away from the head"),
    (
        lambda each: ((each.seen[:, :2] < 0) | (each.seen[:, :2] > each.seen[:, 2:])).any(axis=1),
        lambda each: (
            "it does not look at the head, whose middle is at "
            f"{_numbers(each.seen[0, :2] / each.seen[0, 2])} of the picture"
        ),
    ),
    (lambda each: each.poses[:, 1, 1] > -UPRIGHT, lambda each: "it is upside down or on its side"),
    (
        lambda each: np.abs(each.places[:, 1]) > STEEP * each.distances,
        lambda each: (
            f"it stands {'above' if each.places[0, 1] > 0 else 'below'} the head: "
            "y up and z towards the face are expected"
        ),
    ),
    (lambda each: each.places[:, 2] < 0, lambda each: f"it stands behind the head, at z {each.places[0, 2]:.3g}"),
)


def _are_sound(values: Array) -> NDArray[np.bool_]:
    """Whether each of the labels (N, 25), finite, can be."""
    cameras = _Cameras.of(values)
    return ~np.any([is_bad(cameras) for is_bad, _ in FAULTS], axis=0)


def _describe(values: Array) -> str:
    """Words for the first fault of a bad label (25,), and its likely cause."""
    camera = _Cameras.of(values[None])
    fault = next(say(camera) for is_bad, say in FAULTS if is_bad(camera)[0])
    cause = _find_cause(camera.poses[0], camera.lenses[0])
    return f"{fault} ({cause})" if cause else fault


def _find_cause(pose: Array, lens: Array) -> str:
    """Name the usual mistake whose correction makes a label sound; "" where none does."""

    def is_sound(pose: Any, lens: Any = lens) -> bool:
        return bool(_are_sound(np.concatenate([np.ravel(pose), np.ravel(lens)])[None])[0])

    width, height = 2 * lens[0, 2], 2 * lens[1, 2]
    if min(width, height) > 2 and is_sound(pose, lens / np.array([[width], [height], [1.0]])):
        return f"in pixels? divide it by the picture's size, {width:.0f}"
    if lens[0, 0] > FOCALS[1]:
        return "in pixels, or an angle in degrees? picture sides are expected"
    if is_sound(pose.T):
        return "written column by column? rows are expected"
    for cause, signs in FLIPPED.items():
        if is_sound(pose @ np.diag([*signs, 1.0])):
            return cause
    if np.abs(np.linalg.det(pose)) > TOLERANCE and is_sound(np.linalg.inv(pose)):
        return "world to camera? camera to world is expected"
    for unit, scale in (("millimetres", 1e-3), ("centimetres", 1e-2), ("units of 10 cm", 0.27)):
        if is_sound(pose * np.array([1.0, 1.0, 1.0, scale])[None, :] + np.diag([0.0, 0.0, 0.0, 1.0 - scale])):
            return f"in {unit}? world units are expected, the head fills one"
    return ""


def _within(values: Array, limits: tuple[float, float]) -> Any:
    """Whether all of each row are within the limits.  values: (N, K)."""
    return ((values >= limits[0]) & (values <= limits[1])).all(axis=1)


def _skew(matrices: Array) -> Array:
    """Greatest difference of each matrix times its transpose (N, 3, 3) from the identity."""
    return np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))


def _numbers(values: Array) -> str:
    return " ".join(f"{value:.4g}" for value in values)
