"""The similarity crop of a portrait, as in FFHQ or EG3D, and what the crop does to its camera.

Landmarks are five points (left eye, right eye, nose tip, left mouth corner, right mouth corner; "left" is the
smaller x of an upright face), in pixels, continuous, (0, 0) the outer corner of the first pixel: x = normalised
x * width. An affine is (2, 3): crop = affine[:, :2] @ raw + affine[:, 2], raw in pixels, crop in [0, 1], x right,
y down.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


FOCAL, RADIUS = 4.2647, 2.7  # EG3D's, as in models.camera, which needs torch

# The standard face of Deep3DFaceRecon, (5, 3) in its own unit of 10 cm: x right, y up, z towards the camera.
STANDARD_FACE: Array = np.array(
    [
        [-0.31148657, 0.09036078, 0.13377953],
        [0.30979887, 0.08972035, 0.13179526],
        [0.0032535, -0.24617933, 0.55244243],
        [-0.25216928, -0.5813392, 0.22405732],
        [0.2484662, -0.5812824, 0.22235769],
    ]
)


class Framing(NamedTuple):
    """FFHQ's rule: half the crop is the longer of two lengths, each times its factor.

    FFHQ has 2.0, 1.8 and 0.1. The framing below is set so that the canonical face before the frontal EG3D camera
    (radius 2.7, focal 4.2647) is its own crop, by both lengths.
    """

    eye_to_eye: float
    eye_to_mouth: float
    drop: float  # position of the crop's centre, as a share of the way from the eyes to the mouth

    def square(self, points: Array) -> tuple[Array, float]:
        """Centre (2,) and half a side of the crop of five points, px."""
        left_eye, right_eye, _, left_mouth, right_mouth = points
        eyes = (left_eye + right_eye) / 2
        eye_to_mouth = (left_mouth + right_mouth) / 2 - eyes
        lengths = np.hypot(*(right_eye - left_eye)), np.hypot(*eye_to_mouth)
        half = max(self.eye_to_eye * float(lengths[0]), self.eye_to_mouth * float(lengths[1]))
        return eyes + self.drop * eye_to_mouth, half


class FaceFraming(NamedTuple):
    """EG3D's rule: a standard face is fitted to the points; its origin is the centre, its scale the size.

    The centre lies inside the head, so that a turned head does not leave its place in the crop.
    """

    half: float  # half a side, in the standard face's unit

    def square(self, points: Array) -> tuple[Array, float]:
        """Centre (2,) and half a side of the crop of five points, px."""
        # x and y in the picture are affine functions of the face's points (weak perspective); y points down there.
        fit, *_ = np.linalg.lstsq(np.column_stack([STANDARD_FACE, np.ones(5)]), points, rcond=None)
        scale = float(np.linalg.norm(fit[:3], axis=0).mean())
        return fit[3], self.half * scale


EMBEDDED = Framing(2.32423, 2.13733, 0.15855)  # of models.procedural.CANONICAL_LANDMARKS
EG3D = FaceFraming(7 / 6)  # the middle 700 of 1024 px at 300 px a unit


def framing(world: str) -> Framing | FaceFraming:
    """Return the framing that the models of a world ("embedded" or "paper") were trained with."""
    return EMBEDDED if world == "embedded" else EG3D


def crop_transform(landmarks: ArrayLike, frame: Framing | FaceFraming = EMBEDDED) -> Array:
    """Return the similarity transform that crops a face upright and centred.

    landmarks: (5, 2) raw pixels.  Returns (2, 3): raw pixels -> [0, 1] crop coordinates.
    Raises ValueError where the points span no face (not finite, or all in one place).
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (5, 2):
        raise ValueError(f"five landmarks (5, 2) are needed, got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("a landmark is not a finite number")
    left_eye, right_eye, _, left_mouth, right_mouth = points
    eyes = (left_eye + right_eye) / 2
    eye_to_eye = right_eye - left_eye
    eye_to_mouth = (left_mouth + right_mouth) / 2 - eyes
    # The crop's x axis: the eye line and the perpendicular of the face's axis; the longer one weighs more.
    across = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    length = float(np.hypot(*across))
    centre, half = frame.square(points)
    if half <= 1e-6 or length <= 1e-6 * half:
        raise ValueError("the landmarks span no face")
    x_axis = across / length
    y_axis = np.array([-x_axis[1], x_axis[0]])
    linear = np.stack([x_axis, y_axis]) / (2 * half)
    return np.concatenate([linear, (0.5 - linear @ centre)[:, None]], axis=1)


def roll(affine: ArrayLike) -> Array:
    """Return the rotation (3, 3) about the optical axis by which a crop (2, 3) turns a camera."""
    matrix = np.asarray(affine, dtype=np.float64)
    x_axis = matrix[0, :2] / np.hypot(*matrix[0, :2])
    turn = np.eye(3)
    turn[:2, :2] = [x_axis, [-x_axis[1], x_axis[0]]]
    return turn


def apply_affine(affine: ArrayLike, points: ArrayLike) -> Array:
    """Map points (..., 2) by an affine (2, 3)."""
    matrix = np.asarray(affine, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(affine: ArrayLike) -> Array:
    """The inverse of an affine (2, 3): [0, 1] crop coordinates -> raw pixels."""
    matrix = np.asarray(affine, dtype=np.float64)
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, (-linear @ matrix[:, 2])[:, None]], axis=1)


def effective_camera(label_raw: ArrayLike, affine: ArrayLike, raw_size: tuple[int, int]) -> Array:
    """Return the exact camera of a crop: the raw centre, the crop's roll, and its own intrinsics.

    label_raw: (25,), cam2world 4x4 and intrinsics 3x3 normalised to the raw picture.  raw_size: (width, height),
    pixels.
    Returns (25,), intrinsics normalised to the crop: focal and principal point differ from EG3D's.
    """
    label = np.asarray(label_raw, dtype=np.float64)
    matrix = np.asarray(affine, dtype=np.float64)
    cam2world, intrinsics = label[:16].reshape(4, 4).copy(), label[16:].reshape(3, 3)
    turn = roll(matrix)
    to_crop = np.eye(3)
    to_crop[:2] = matrix
    intrinsics_crop = to_crop @ np.diag([float(raw_size[0]), float(raw_size[1]), 1.0]) @ intrinsics @ turn.T
    cam2world[:3, :3] = cam2world[:3, :3] @ turn.T
    return np.concatenate([cam2world.ravel(), intrinsics_crop.ravel()])


def centred_rotation(label: ArrayLike) -> Array:
    """The rotation (3, 3) of a camera turned to look through the picture's middle: the shift folded in.

    A crop off the optical axis is, to first order, the view of a turned camera; this is the turned camera.
    """
    values = np.asarray(label, dtype=np.float64)
    rotation, intrinsics = values[:16].reshape(4, 4)[:3, :3], values[16:].reshape(3, 3)
    axis = np.linalg.solve(intrinsics, np.array([0.5, 0.5, 1.0]))
    axis /= np.linalg.norm(axis)
    # The smallest rotation that takes (0, 0, 1) to the axis.
    x, y, z = axis
    turn = np.array(
        [[1 - x * x / (1 + z), -x * y / (1 + z), x], [-x * y / (1 + z), 1 - y * y / (1 + z), y], [-x, -y, z]]
    )
    return rotation @ turn


def rotation_angle_deg(first: ArrayLike, second: ArrayLike) -> float:
    """The angle between two rotations (3, 3), degrees."""
    # By the chord |R1 - R2| = 2 sqrt(2) sin(angle / 2): exact for small angles, unlike arccos of the trace.
    chord = np.linalg.norm(np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64))
    return float(np.rad2deg(2 * np.arcsin(min(1.0, float(chord) / (2 * np.sqrt(2))))))
