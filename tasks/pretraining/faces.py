"""Faces for the identity network: the same people in many scenes, from many sides, in many styles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import alignment, camera, procedural
from models.procedural.photo import RAW_SIZE_PX, raw_camera
from tasks.pretraining.pictures import LANDMARK_NOISE_PX, LOOKS, SIZE_PX

PICTURES_PER_PERSON = 12
PLAIN_SHARE = 0.5
MAX_YAW = 0.7


@dataclass
class Faces:
    """images (N, 12, 64, 64, 3) uint8 and looks (N, 12), indices into `pictures.LOOKS`."""

    images: np.ndarray
    looks: np.ndarray


def face_person(seed: int) -> tuple[np.ndarray, np.ndarray]:
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
        images.append((rgb.numpy() * 255.0 + 0.5).astype(np.uint8))
        looks.append(look)
    return np.stack(images), np.array(looks)


def render_block(folder: Path, first_seed: int, count: int) -> Path:
    """Render `count` people into one .npz; nothing is done when the file is there."""
    path = folder / f"{first_seed}-{count}.npz"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    people = [face_person(seed) for seed in range(first_seed, first_seed + count)]
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            images=np.stack([images for images, _ in people]),
            looks=np.stack([looks for _, looks in people]),
        )
    part.rename(path)
    return path


def load_faces(folder: Path, first_seed: int, count: int) -> Faces:
    """Read the blocks of [first_seed, first_seed + count) that are there into memory."""
    blocks = []
    for path in sorted(folder.glob("*.npz"), key=lambda path: int(path.stem.split("-")[0])):
        start = int(path.stem.split("-")[0])
        if first_seed <= start < first_seed + count:
            with np.load(path) as block:
                blocks.append((block["images"], block["looks"]))
    if not blocks:
        raise FileNotFoundError(f"no faces from seed {first_seed} in {folder}")
    return Faces(np.concatenate([images for images, _ in blocks]), np.concatenate([looks for _, looks in blocks]))
