"""The embedded landmark detector: raw photographs and crops in every look, against projected truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.faces.landmarks import LandmarkNet
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of, save_half, to_signed
from tasks.lab.pretraining.pictures import SIZE_PX, Pictures

BATCH = 32
HEAT_SIGMA = 0.02  # share of the picture's width


def build(weights: Path) -> nn.Module:
    return LandmarkNet()


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    """Distance of the soft argmax to the truth, and heat that stays together."""
    assert isinstance(network, LandmarkNet)
    people = batch_of(pictures, draw, BATCH)
    half = BATCH // 2
    looks = draw.rng.integers(pictures.crops.shape[1], size=half)
    images = to_signed(np.concatenate([pictures.photos[people[:half]], pictures.crops[people[half:], looks]]))
    truth = torch.from_numpy(
        np.concatenate([pictures.photo_landmarks[people[:half]], pictures.crop_landmarks[people[half:]]])
    )
    images, truth = _shift(images, truth, draw)
    points, heat = network(images + 0.03 * torch.randn(images.shape, generator=draw.torch_rng))
    distance = (points.float() - truth).norm(dim=-1).mean()
    centres = (torch.arange(heat.shape[-1]) + 0.5) / heat.shape[-1]
    away = (centres - truth[..., 0, None]).square()[..., None, :] + (centres - truth[..., 1, None]).square()[
        ..., :, None
    ]
    target = torch.softmax((-away / (2 * HEAT_SIGMA**2)).flatten(2), dim=-1)
    spread = -(target * heat.float().flatten(2).clamp_min(1e-8).log()).sum(-1).mean()
    return 10 * distance + 0.1 * spread, {"distance_px": distance * SIZE_PX, "spread": spread}


def _shift(images: Tensor, truth: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """Mirror some pictures and move each by a few pixels; the borders repeat."""
    flip = torch.from_numpy(draw.rng.random(len(images)) < 0.5)
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    mirrored = torch.stack([1 - truth[..., 0], truth[..., 1]], dim=-1)[:, [1, 0, 2, 4, 3]]
    truth = torch.where(flip[:, None, None], mirrored, truth)
    offset = draw.rng.integers(-5, 6, size=(len(images), 2))
    padded = nn.functional.pad(images, (5, 5, 5, 5), mode="replicate")
    moved = [padded[i, :, 5 + y : 5 + y + SIZE_PX, 5 + x : 5 + x + SIZE_PX] for i, (x, y) in enumerate(offset)]
    return torch.stack(moved), truth - torch.from_numpy(offset)[:, None].float() / SIZE_PX


def save(network: nn.Module, folder: Path) -> None:
    save_half(network, folder / "landmarks" / "landmarks.safetensors")


RECIPE = Recipe(
    "landmarks",
    steps=1000,
    lr=3e-3,
    build=build,
    loss=loss,
    save=save,
    bfloat16=True,
    ema=0.99,
)
