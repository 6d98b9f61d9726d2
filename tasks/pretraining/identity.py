"""The embedded identity network: ArcFace over people whose scene, camera and style change from picture to picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from models.identity import EMBEDDING, IdentityNet
from tasks.pretraining.faces import PICTURES_PER_PERSON, Faces
from tasks.pretraining.loop import Draw, Recipe, save_half, to_signed

BATCH = 96
SCALE, MARGIN = 20.0, 0.25  # of Deng et al. 2019, smaller: there are fewer and simpler people
MAX_PEOPLE = 4096


class IdentityTraining(nn.Module):
    """The network and the class centres that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.network = IdentityNet()
        self.centres = nn.Parameter(torch.randn(MAX_PEOPLE, EMBEDDING))


def build(weights: Path) -> nn.Module:
    return IdentityTraining()


def loss(network: nn.Module, faces: Faces, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    assert isinstance(network, IdentityTraining)
    people = draw.rng.integers(len(faces.images), size=BATCH)
    images = to_signed(faces.images[people, draw.rng.integers(PICTURES_PER_PERSON, size=BATCH)])
    flip = torch.from_numpy(draw.rng.random(BATCH) < 0.5)
    images = torch.where(flip[:, None, None, None], images.flip(-1), images)
    images = images * (1 + 0.1 * torch.randn(BATCH, 3, 1, 1, generator=draw.torch_rng))
    embedding = network.network(images).float()
    cosine = embedding @ nn.functional.normalize(network.centres[: len(faces.images)], dim=-1).T
    truth = torch.from_numpy(people)
    own = nn.functional.one_hot(truth, cosine.shape[1]).bool()
    angle = torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6))
    logits = SCALE * torch.where(own, torch.cos((angle + MARGIN).clamp(max=torch.pi)), cosine)
    right = (cosine.argmax(1) == truth).float().mean()
    return nn.functional.cross_entropy(logits, truth), {"right": right}


@torch.no_grad()
def measure(network: nn.Module, faces: Faces) -> dict[str, float]:
    """Verification AUC on people never trained on: any two pictures, and a plain one against a styled one."""
    assert isinstance(network, IdentityTraining)
    embedding = torch.stack([network.network.embed(images) for images in faces.images])
    count, pictures, _ = embedding.shape
    flat = embedding.flatten(0, 1)
    cosine = (flat @ flat.T).numpy()
    person = np.repeat(np.arange(count), pictures)
    plain = faces.looks.reshape(-1) == 0
    same = person[:, None] == person[None]
    upper = np.triu(np.ones_like(same), 1)

    def auc(pairs: np.ndarray) -> float:
        return float(roc_auc_score(same[pairs], cosine[pairs]))

    return {
        "auc_plain": auc(upper & plain[:, None] & plain[None]),
        "auc_plain_to_styled": auc(plain[:, None] & ~plain[None]),
        "auc_all": auc(upper),
        "cosine_same_median": float(np.median(cosine[upper & same])),
        "cosine_other_median": float(np.median(cosine[upper & ~same])),
    }


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, IdentityTraining)
    save_half(network.network, folder / "identity" / "identity.safetensors")


RECIPE = Recipe(
    "identity",
    steps=1000,
    lr=2e-3,
    build=build,
    loss=loss,
    save=save,
    measure=measure,
    bfloat16=True,
    ema=0.99,
    faces=True,
)
