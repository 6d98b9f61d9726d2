"""Learning rates by parameter group, and their schedule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from tasks.training.optimizers import build, group

if TYPE_CHECKING:
    from data_catalog.config.settings import DistillSettings
    from models.three_d.student import Student


def make_optimizer(student: Student, settings: DistillSettings) -> torch.optim.Optimizer:
    """Return the optimizer. E_p is new and has its own learning rate; E_t starts trained and has another."""
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    new = [p for name, p in learning.items() if name.startswith("encoder.Ref_encoder.")]
    trained = [p for name, p in learning.items() if not name.startswith("encoder.Ref_encoder.")]
    kind, decay = settings.optimizer, settings.weight_decay
    return build(kind, [*group(new, kind, settings.lr, decay), *group(trained, kind, settings.lr_transformer, decay)])


def learning_rate_share(step: int, settings: DistillSettings) -> float:
    """Linear warm-up, then a cosine from 1 to `lr_end_fraction`."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    low = settings.lr_end_fraction
    return warm * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * step / settings.iterations)))
