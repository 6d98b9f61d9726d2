"""How fast what learns: learning rates by part of the student, and their course over the iterations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_catalog.settings import DistillSettings
    from models.student import Student


def parameter_groups(student: Student, settings: DistillSettings) -> list[dict[str, Any]]:
    """E_p and E_t with their own learning rates: the second is trained already and must not be shaken."""
    rates = {"Ref_encoder": settings.lr, "Final_encoder": settings.lr_transformer}
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    assert all(name.split(".")[1] in rates for name in learning)
    groups: list[dict[str, Any]] = []
    for part, lr in rates.items():
        parameters = [p for name, p in learning.items() if name.startswith(f"encoder.{part}.")]
        groups.append({"params": parameters, "lr": lr, "full_lr": lr})
    return groups


def learning_rate_share(step: int, settings: DistillSettings) -> float:
    """Linear warm-up, then a cosine from 1 to `lr_end_fraction`."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    low = settings.lr_end_fraction
    return warm * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * step / settings.iterations)))
