"""The backbone of the embedded LPIPS: a SqueezeNet that reads look, hair, glasses, colours and landmarks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.judges.perceptual import FEATURES_FILE, Perceptual
from models.procedural.person import HAIR_STYLES, sample_identity, sample_scene
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of, save_half, to_signed
from tasks.lab.pretraining.pictures import LOOKS, TRAINING_SEEDS, Pictures

BATCH = 32


class PerceptualTraining(nn.Module):
    """The backbone and the heads that only training needs."""

    def __init__(self) -> None:
        super().__init__()
        self.perceptual = Perceptual.untrained()
        self.backbone = self.perceptual.metric.net.requires_grad_(True)
        self.heads = nn.ModuleDict(
            {
                "look": nn.Linear(512, len(LOOKS)),
                "hair": nn.Linear(512, len(HAIR_STYLES)),
                "flags": nn.Linear(512, 2),
                "colours": nn.Linear(512, 9),
                "points": nn.Linear(512 * 9, 10),
            }
        )
        self.training_facts = _facts(TRAINING_SEEDS, 0)


def _facts(first_seed: int, count: int) -> dict[str, Tensor]:
    people = [(sample_identity(seed), sample_scene(seed)) for seed in range(first_seed, first_seed + count)]
    return {
        "hair": torch.tensor([HAIR_STYLES.index(identity.hair_style) for identity, _ in people], dtype=torch.long),
        "flags": torch.tensor([[identity.glasses, identity.beard] for identity, _ in people], dtype=torch.float32),
        "colours": torch.tensor([[*i.skin, *i.hair, *s.clothes] for i, s in people], dtype=torch.float32),
    }


def build(weights: Path) -> nn.Module:
    return PerceptualTraining()


def prepare(network: nn.Module, pictures: Pictures) -> None:
    assert isinstance(network, PerceptualTraining)
    network.training_facts = _facts(TRAINING_SEEDS, len(pictures.crops))


def _read(network: PerceptualTraining, images: Tensor) -> dict[str, Tensor]:
    scaled = network.perceptual.metric.scaling_layer(images)
    last = network.backbone(scaled)[-1]
    pooled = last.mean(dim=(2, 3))
    grid = nn.functional.adaptive_avg_pool2d(last, 3).flatten(1)
    return {name: head(grid if name == "points" else pooled) for name, head in network.heads.items()}


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    assert isinstance(network, PerceptualTraining)
    people = batch_of(pictures, draw, BATCH)
    looks = draw.rng.integers(len(LOOKS), size=BATCH)
    looks[: BATCH // 4] = 0
    read = _read(network, to_signed(pictures.crops[people, looks]))
    facts = {name: value[people] for name, value in network.training_facts.items()}
    plain = torch.from_numpy(looks == 0).float()
    truth = torch.from_numpy(looks)
    look = nn.functional.cross_entropy(read["look"], truth)
    hair = (nn.functional.cross_entropy(read["hair"], facts["hair"], reduction="none") * plain).mean()
    flags = nn.functional.binary_cross_entropy_with_logits(read["flags"], facts["flags"])
    colours = ((read["colours"] - facts["colours"]).abs().mean(1) * plain).mean()
    points = (read["points"] - torch.from_numpy(pictures.crop_landmarks[people]).flatten(1)).abs().mean()
    value = look + hair + flags + 4 * colours + 10 * points
    right = (read["look"].argmax(1) == truth).float().mean()
    return value, {
        "look": look,
        "hair": hair,
        "flags": flags,
        "colours": colours,
        "points": points,
        "right": right,
    }


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, PerceptualTraining)
    save_half(network.backbone, folder / "perceptual" / FEATURES_FILE)


RECIPE = Recipe(
    "perceptual", steps=4000, lr=2e-3, build=build, loss=loss, save=save, prepare=prepare,
    bfloat16=True, ema=0.99, optimizer="muon",
)  # fmt: skip
