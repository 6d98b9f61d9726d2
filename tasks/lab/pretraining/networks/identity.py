"""The embedded identity network: ArcFace over people whose scene, camera and style change from picture to picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.judges.identity import EMBEDDING, IdentityNet
from tasks.lab.pretraining.faces import PICTURES_PER_PERSON, Faces
from tasks.lab.pretraining.loop import Draw, Recipe, save_half, to_signed

BATCH = 96
SCALE, MARGIN = 20.0, 0.25  # of Deng et al. 2019, smaller: there are fewer and simpler people
MAX_PEOPLE = 4096
# Long centres hardly turn: the network would have to come to where they happen to point, and all faces become one.
CENTRE_LENGTH = 0.4
SOFT_LOTS = 12  # of a batch; each goes through fewer pixels, or not
SOFTENED, SOFTEST_PX = 0.5, 20
MOVED = 0.06  # of half a picture, each way; and as much larger or smaller


class IdentityTraining(nn.Module):
    """The network and the class centres that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = IdentityNet()
        self.centres = nn.Parameter(CENTRE_LENGTH / EMBEDDING**0.5 * torch.randn(MAX_PEOPLE, EMBEDDING))


def build(weights: Path) -> nn.Module:
    return IdentityTraining()


def loss(network: nn.Module, faces: Faces, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    assert isinstance(network, IdentityTraining)
    people = draw.rng.integers(len(faces.images), size=BATCH)
    images = to_signed(faces.images[people, draw.rng.integers(PICTURES_PER_PERSON, size=BATCH)])
    embedding = network.network(disturb(images, draw)).float()
    cosine = embedding @ nn.functional.normalize(network.centres[: len(faces.images)], dim=-1).T
    truth = torch.from_numpy(people)
    own = nn.functional.one_hot(truth, cosine.shape[1]).bool()
    angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
    logits = SCALE * torch.where(own, torch.cos((angle + MARGIN).clamp(max=torch.pi)), cosine)
    right = (cosine.argmax(1) == truth).float().mean()
    return nn.functional.cross_entropy(logits, truth), {"right": right}


def disturb(images: Tensor, draw: Draw) -> Tensor:
    """Apply changes that keep the person: mirror, brightness, softness, shift.  images: (B, 3, H, W)."""
    count = len(images)
    flip = torch.from_numpy(draw.rng.random(count) < 0.5)
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    images = images * (1 + 0.1 * torch.randn(count, 3, 1, 1, generator=draw.torch_rng))
    images = torch.cat([_soften(lot, draw.rng) for lot in images.chunk(SOFT_LOTS)])
    jitter = MOVED * (2 * torch.rand(count, 3, generator=draw.torch_rng) - 1)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = 1 + jitter[:, 0]
    affine[:, :, 2] = jitter[:, 1:]
    grid = nn.functional.affine_grid(affine, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _soften(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Soften some pictures: rendered ones are softer than portraits, and softness must not affect identity."""
    if rng.random() >= SOFTENED:
        return images
    size = images.shape[-1]
    smaller = int(rng.integers(SOFTEST_PX, size))
    small = nn.functional.interpolate(images, (smaller, smaller), mode="bilinear", antialias=True)
    return nn.functional.interpolate(small, (size, size), mode="bilinear")


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, IdentityTraining)
    save_half(network.network, folder / "identity" / "identity.safetensors")


RECIPE = Recipe(
    "identity", steps=3000, lr=2e-3, build=build, loss=loss, save=save, bfloat16=True, ema=0.99,
    optimizer="muon", faces=True,
)  # fmt: skip
