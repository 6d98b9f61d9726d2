"""How fast what learns: the optimizer, learning rates by part of the student, and their course over the iterations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from data_catalog.settings import DistillSettings
    from models.student import Student

BETAS = (0.9, 0.99)  # of AdamW
MOMENTUM = 0.9  # of Muon


def make_optimizer(student: Student, settings: DistillSettings) -> torch.optim.Optimizer:
    """Steps for all that learns. E_p is new and has a rate of its own; the rest is trained and must not be shaken."""
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    new = [p for name, p in learning.items() if name.startswith("encoder.Ref_encoder.")]
    trained = [p for name, p in learning.items() if not name.startswith("encoder.Ref_encoder.")]
    groups = [*_groups(new, settings.lr, settings), *_groups(trained, settings.lr_transformer, settings)]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups)
    from pytorch_optimizer import Muon

    return Muon(groups, use_adjusted_lr=True)  # steps as long as AdamW's at the same learning rate


def _groups(parameters: Sequence[nn.Parameter], lr: float, settings: DistillSettings) -> list[dict[str, Any]]:
    """`full_lr` is the rate before its course over the iterations. Gains and biases have no use for Muon."""
    common = {"lr": lr, "initial_lr": lr, "full_lr": lr, "weight_decay": settings.weight_decay}
    by_adamw: dict[str, Any] = {"params": list(parameters), "betas": BETAS, **common}
    if settings.optimizer == "adamw":
        return [by_adamw]
    by_adamw |= {"params": [p for p in parameters if p.ndim <= 1], "use_muon": False}
    by_muon = {"params": [p for p in parameters if p.ndim > 1], "use_muon": True, "momentum": MOMENTUM, **common}
    return [group for group in (by_muon, by_adamw) if group["params"]]


def learning_rate_share(step: int, settings: DistillSettings) -> float:
    """Linear warm-up, then a cosine from 1 to `lr_end_fraction`."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    low = settings.lr_end_fraction
    return warm * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * step / settings.iterations)))
