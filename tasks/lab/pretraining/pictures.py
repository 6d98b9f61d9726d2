"""Training pictures of the procedural world, rendered once and kept as arrays.

One person gives: a hand-held crop in every style (editor, CLIP, identity, MAE, perceptual backbone, landmarks), and for
the teacher a few views of some of those styles from EG3D's cameras, with depth. Seeds from `TRAINING_SEEDS` on are
never met by a portrait of a dataset, whose seeds are small.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import camera, procedural
from models.faces import alignment
from models.pixels import to_levels
from models.procedural.photo import RAW_SIZE_PX, raw_camera
from models.procedural.render import CHANGED
from tasks.lab.pretraining import blocks

SIZE_PX = 64
LOOKS: tuple[str | None, ...] = (None, *procedural.STYLES)
TRAINING_SEEDS = 1_000_000  # first seed of training; held-out people of the model cards start at VALIDATION_SEEDS
VALIDATION_SEEDS = 2_000_000
STYLES_PER_PERSON, VIEWS_PER_STYLE = 3, 3
LANDMARK_NOISE_PX = 0.9  # of a 128 px photograph: what a detector gets wrong moves the crop
MAX_VIEW_YAW, MAX_VIEW_PITCH = 0.7, 0.30


@dataclass
class Pictures:
    """N people as arrays.  Looks: plain first, then `procedural.STYLES`."""

    crops: np.ndarray  # (N, 11, 64, 64, 3) uint8, the hand-held crop in every look
    crop_cameras: np.ndarray  # (N, 25) float32, exact
    crop_landmarks: np.ndarray  # (N, 5, 2) float32 in [0, 1] of the crop
    crop_depths: np.ndarray  # (N, 3, 64, 64) float16, of the chosen looks; inf off the head
    looks: np.ndarray  # (N, 3) int64, the looks shown from other sides
    views: np.ndarray  # (N, 3, 3, 64, 64, 3) uint8
    plain_views: np.ndarray  # (N, 3, 64, 64, 3) uint8, the same cameras without a style
    depths: np.ndarray  # (N, 3, 3, 64, 64) float16
    cameras: np.ndarray  # (N, 3, 25) float32, shared by the looks
    photos: np.ndarray  # (N, 64, 64, 3) uint8: the raw photograph at half its size
    photo_landmarks: np.ndarray  # (N, 5, 2) float32 in [0, 1]


def hand_held_crop(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw camera (25,) of a seed's photograph and the exact camera (25,) of its crop, found through noisy landmarks."""
    person = procedural.portrait(seed)
    rng = np.random.default_rng([seed, 3])
    raw = raw_camera(rng)
    points = camera.project(procedural.landmarks(person)[None], raw[None])[0].numpy() * RAW_SIZE_PX
    affine = alignment.crop_transform(points + rng.normal(0.0, LANDMARK_NOISE_PX, points.shape))
    crop = alignment.effective_camera(raw.numpy(), affine, (RAW_SIZE_PX, RAW_SIZE_PX))
    return raw, torch.from_numpy(crop).float()


def picture_person(seed: int) -> dict[str, np.ndarray]:
    """Every training picture of one person, as in `Pictures` without the first dimension."""
    rng = np.random.default_rng([seed, 4])
    person = procedural.portrait(seed)
    raw, crop = hand_held_crop(seed)
    in_crop = procedural.render_styles(person, crop, SIZE_PX, list(LOOKS))
    looks = np.sort(rng.choice(len(LOOKS), STYLES_PER_PERSON, replace=False))
    poses = [
        (rng.uniform(-MAX_VIEW_YAW, MAX_VIEW_YAW), rng.uniform(-MAX_VIEW_PITCH, MAX_VIEW_PITCH))
        for _ in range(VIEWS_PER_STYLE)
    ]
    cameras = torch.cat([camera.orbit_label(float(yaw), float(pitch)) for yaw, pitch in poses])
    names = [LOOKS[look] for look in looks] + [None]
    views = [procedural.render_styles(person, label, SIZE_PX, names) for label in cameras]
    points = procedural.landmarks(person)[None]
    return {
        "crops": np.stack([to_levels(picture.rgb) for picture in in_crop]),
        "crop_cameras": crop.numpy(),
        "crop_landmarks": camera.project(points, crop[None])[0].numpy(),
        "crop_depths": np.stack([in_crop[look].depth.numpy().astype(np.float16) for look in looks]),
        "looks": looks,
        "views": np.stack([[to_levels(view[k].rgb) for view in views] for k in range(STYLES_PER_PERSON)]),
        "depths": np.stack(
            [[view[k].depth.numpy().astype(np.float16) for view in views] for k in range(STYLES_PER_PERSON)]
        ),
        "plain_views": np.stack([to_levels(view[STYLES_PER_PERSON].rgb) for view in views]),
        "cameras": cameras.numpy(),
        "photos": to_levels(procedural.render(person, raw, SIZE_PX).rgb),
        "photo_landmarks": camera.project(points, raw[None])[0].numpy(),
    }


def render_block(folder: Path, first_seed: int, count: int) -> Path:
    """See `blocks.render_block`."""
    return blocks.render_block(folder, first_seed, count, picture_person)


def load_pictures(folder: Path, first_seed: int, count: int) -> Pictures:
    """Read the existing blocks of [first_seed, first_seed + count) into memory."""
    return Pictures(**blocks.load_blocks(folder, first_seed, count))


def changed_pixels(edits: np.ndarray, plain: np.ndarray) -> torch.Tensor:
    """1 where the true edits change their portraits, else 0: (B, 1, H, W).  edits, plain: (B, H, W, 3) uint8."""
    changed = np.abs(edits.astype(np.int16) - plain) > round(CHANGED * 255)
    return torch.from_numpy(changed.any(axis=-1))[:, None].float()


def share_out(changed: torch.Tensor, smallest: float, weight: float) -> torch.Tensor:
    """Return weights of a loss: 1, and `weight` more, shared by the places that an edit changes.

    changed: (B, 1, H, W), 0 or 1.  smallest: share of the picture below which a change gains no more weight.
    """
    share = changed.mean(dim=(1, 2, 3), keepdim=True).clamp_min(smallest)
    return 1.0 + weight * changed / share
