"""Training loop of the embedded networks: seeded by step, checkpointed, resumed bit for bit."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from models.precision import autocast
from tasks.lab.pretraining.faces import Faces
from tasks.lab.pretraining.pictures import Pictures
from tasks.training.checkpoints import Checkpoints, Part
from tasks.training.optimizers import OptimizerName, build, group
from tasks.training.rates import Course

TrainingData = Pictures | Faces

logger = logging.getLogger(__name__)

WARMUP_STEPS = 100
LR_END = 0.02  # share of the learning rate that is left at the end
REPORT_EVERY = 50
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Draw:
    """The randomness of one step, a function of (recipe, step) alone."""

    rng: np.random.Generator
    torch_rng: torch.Generator
    progress: float  # in [0, 1) of the whole training


@dataclass(frozen=True)
class Recipe:
    """Training of one network.

    `loss` returns the loss and the parts of it to plot; `save` writes the folder that `models.zoo.zoo` loads.
    """

    name: str
    steps: int
    lr: float
    build: Callable[[Path], nn.Module]
    loss: Callable[[nn.Module, Any, Draw], tuple[Tensor, dict[str, Tensor]]]
    save: Callable[[nn.Module, Path], None]
    prepare: Callable[[nn.Module, Any], None] | None = None  # once, before the first step of a process
    finish: Callable[[nn.Module, Any], None] | None = None  # once, after the last step
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 0.01
    bfloat16: bool = False  # autocast where the processor has it (imitated, ten times as slow); the loss is float32
    ema: float = 0.0  # decay of the averaged weights that are saved; 0 saves the last ones
    seed: int = 0
    faces: bool = False  # learns from `faces.Faces` instead of `pictures.Pictures`


def train(recipe: Recipe, pictures: TrainingData, weights: Path, work: Path) -> nn.Module:
    """Train to the recipe's last step, from the newest checkpoint in `work`; returns the network to save.

    weights: the folder of the embedded models, for recipes that build on another network.
    """
    torch.manual_seed(recipe.seed)
    network = recipe.build(weights)
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(recipe.ema)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=ema) if recipe.ema else None
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = build(recipe.optimizer, group(learning, recipe.optimizer, recipe.lr, recipe.weight_decay))
    schedule = LambdaLR(optimizer, Course(recipe.steps, WARMUP_STEPS, LR_END))
    kept: dict[str, Part] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    checkpoints = Checkpoints(work, kept if average is None else {**kept, "average": average})
    step = checkpoints.resume()
    if recipe.prepare is not None:
        recipe.prepare(network, pictures)
    began, first = time.monotonic(), step
    network.train()
    while step < recipe.steps:
        draw = Draw(
            np.random.default_rng([recipe.seed, step]),
            torch.Generator().manual_seed(recipe.seed * 1_000_003 + step),
            step / recipe.steps,
        )
        with autocast("auto" if recipe.bfloat16 else "float32", "cpu"):
            loss, parts = recipe.loss(network, pictures, draw)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(network)
        step += 1
        if step % REPORT_EVERY == 0:
            metrics = {key: float(value.detach()) for key, value in {"loss": loss, **parts}.items()}
            metrics["seconds_per_step"] = (time.monotonic() - began) / (step - first)
            _report(work, recipe.name, step, recipe.steps, metrics)
        if step % CHECKPOINT_EVERY == 0 or step == recipe.steps:
            checkpoints.save(step)
    trained = (average.module if average is not None else network).eval()
    if recipe.finish is not None:
        recipe.finish(trained, pictures)
    return trained


def batch_of(pictures: Pictures, draw: Draw, size: int) -> np.ndarray:
    """(size,) indices of people, drawn with replacement."""
    return draw.rng.integers(len(pictures.crops), size=size)


def to_signed(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 to (B, 3, H, W) float in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def save_half(network: nn.Module, path: Path) -> None:
    """Weights and buffers in half precision, as the zoo loads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in network.state_dict().items()}, path)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors creates a file readable by its owner alone


def _report(work: Path, name: str, step: int, steps: int, metrics: dict[str, float]) -> None:
    work.mkdir(parents=True, exist_ok=True)
    with (work / "curve.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")
    values = "  ".join(f"{key} {value:.4f}" for key, value in metrics.items())
    logger.info("%s %d/%d  %s", name, step, steps, values)
