"""The embedded MAE, whose tokens are image prompts: masked autoencoding of pictures in every look."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.three_d.mae import EMBEDDED, Mae, MaskedAutoencoder, normalise
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of, save_half
from tasks.lab.pretraining.pictures import LOOKS, Pictures

BATCH = 48


def build(weights: Path) -> nn.Module:
    return MaskedAutoencoder(EMBEDDED)


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    assert isinstance(network, MaskedAutoencoder)
    looks = draw.rng.integers(len(LOOKS), size=BATCH)
    images = torch.from_numpy(pictures.crops[batch_of(pictures, draw, BATCH), looks])
    value = network(normalise(images, EMBEDDED.image_size), draw.torch_rng)
    return value, {}


@torch.no_grad()
def measure(network: nn.Module, pictures: Pictures) -> dict[str, float]:
    """Error on masked patches of held-out people; and how well the mean token tells the look (nearest class mean)."""
    assert isinstance(network, MaskedAutoencoder)
    mae = Mae(network.encoder)
    features = torch.stack([mae.tokens(crops)[:, 1:].mean(1) for crops in pictures.crops]).numpy()  # (N, looks, D)
    half = len(features) // 2
    centres, deviation = features[:half].mean(0), features[:half].std((0, 1)) + 1e-6
    distance = (((features[half:, :, None] - centres) / deviation) ** 2).sum(-1)
    right = distance.argmin(-1) == np.arange(len(LOOKS))
    images = normalise(torch.from_numpy(pictures.crops[:, 0]), EMBEDDED.image_size)
    masked = network(images, torch.Generator().manual_seed(0))
    return {"masked_error": float(masked), "look_accuracy_nearest_mean": float(right.mean())}


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, MaskedAutoencoder)
    target = folder / "mae"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(EMBEDDED.to_dict(), indent=1))
    save_half(network.encoder, target / "mae.safetensors")


RECIPE = Recipe(
    "mae", steps=3000, lr=2e-3, build=build, loss=loss, save=save, measure=measure, ema=0.99, optimizer="muon"
)
