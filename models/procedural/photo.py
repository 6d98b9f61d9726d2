"""Raw photographs: a procedural person before a hand-held camera.

The picture is larger than the head crop and has roll, scale and offset, which alignment has to undo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models import camera
from models.pixels import to_levels
from models.procedural.person import Person, portrait
from models.procedural.render import landmarks, render

RAW_SIZE_PX = 128
MAX_YAW, MAX_PITCH = 0.5, 0.22  # radians


@dataclass(frozen=True)
class RawPhoto:
    """rgb (128, 128, 3) uint8; label (25,) the exact camera; landmarks (5, 2) pixels, x right, y down."""

    rgb: np.ndarray
    label: Tensor
    landmarks: np.ndarray
    person: Person


def raw_camera(rng: np.random.Generator, max_yaw: float = MAX_YAW) -> Tensor:
    """(25,) label of a hand-held camera: pose, roll about the optical axis, zoom and offset."""
    yaw, pitch = rng.uniform(-max_yaw, max_yaw), rng.uniform(-MAX_PITCH, MAX_PITCH)
    roll = rng.normal(0.0, 0.10)
    pose = camera.look_at(float(yaw), float(pitch))[0]
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]], dtype=torch.float32)
    focal = camera.FOCAL * rng.uniform(0.62, 0.80)
    cx, cy = 0.5 + rng.uniform(-0.06, 0.06), 0.5 + rng.uniform(-0.05, 0.05)
    intrinsics = camera.intrinsics(float(focal), float(cx), float(cy))
    return camera.camera_label((pose @ turn)[None], intrinsics)[0]


def raw_photo(seed: int) -> RawPhoto:
    """Return the raw photograph of a seed; the same seed always gives the same person, scene and camera."""
    person = portrait(seed)
    label = raw_camera(np.random.default_rng([seed, 3]))
    rgb = render(person, label, RAW_SIZE_PX).rgb
    points = camera.project(landmarks(person)[None], label[None])[0].numpy() * RAW_SIZE_PX
    return RawPhoto(to_levels(rgb), label, points.astype(np.float32), person)
