"""Faces for the identity network: the same people in many scenes, from many sides, in many styles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import camera, procedural
from models.faces import alignment
from models.pixels import to_levels
from models.procedural.photo import RAW_SIZE_PX, raw_camera
from tasks.lab.pretraining import blocks
from tasks.lab.pretraining.pictures import LANDMARK_NOISE_PX, LOOKS, SIZE_PX

PICTURES_PER_PERSON = 12
PLAIN_SHARE = 0.5
MAX_YAW = 0.7


@dataclass
class Faces:
    """images (N, 12, 64, 64, 3) uint8 and looks (N, 12), indices into `pictures.LOOKS`."""

    images: np.ndarray
    looks: np.ndarray


def face_person(seed: int) -> dict[str, np.ndarray]:
    """Twelve crops of one identity; background, clothes, light, camera and look are drawn for each."""
    rng = np.random.default_rng([seed, 5])
    images, looks = [], []
    for _ in range(PICTURES_PER_PERSON):
        person = procedural.portrait(seed, scene_seed=int(rng.integers(2**31)))
        look = 0 if rng.random() < PLAIN_SHARE else int(rng.integers(1, len(LOOKS)))
        raw = raw_camera(rng, MAX_YAW)
        points = camera.project(procedural.landmarks(person)[None], raw[None])[0].numpy() * RAW_SIZE_PX
        affine = alignment.crop_transform(points + rng.normal(0.0, LANDMARK_NOISE_PX, points.shape))
        crop = torch.from_numpy(alignment.effective_camera(raw.numpy(), affine, (RAW_SIZE_PX, RAW_SIZE_PX))).float()
        rgb = procedural.render(person, crop, SIZE_PX, LOOKS[look]).rgb
        images.append(to_levels(rgb))
        looks.append(look)
    return {"images": np.stack(images), "looks": np.array(looks)}


def render_block(folder: Path, first_seed: int, count: int) -> Path:
    """See `blocks.render_block`."""
    return blocks.render_block(folder, first_seed, count, face_person)


def load_faces(folder: Path, first_seed: int, count: int) -> Faces:
    """Read the existing blocks of [first_seed, first_seed + count) into memory."""
    return Faces(**blocks.load_blocks(folder, first_seed, count))
