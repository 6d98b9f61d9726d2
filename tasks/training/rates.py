"""Learning rates: by part of the student, and their course over the steps, for torch's `LambdaLR`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tasks.training.optimizers import build, group

if TYPE_CHECKING:
    from data_catalog.config.settings import DistillSettings
    from models.three_d.student import Student


E_P = "encoder.Ref_encoder."
STARTS_TRAINED = (f"{E_P}mae_encoder.", f"{E_P}text_encoder.")


def make_optimizer(student: Student, settings: DistillSettings) -> torch.optim.Optimizer:
    """Return the optimizer. E_p is new and has its own learning rate; E_t and E_p's encoders start trained."""
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    is_new = {name: name.startswith(E_P) and not name.startswith(STARTS_TRAINED) for name in learning}
    new, trained = ([p for name, p in learning.items() if is_new[name] == wanted] for wanted in (True, False))
    kind, common = settings.optimizer, (settings.weight_decay, settings.betas)
    groups = [*group(new, kind, settings.lr, *common), *group(trained, kind, settings.lr_transformer, *common)]
    return build(kind, groups)


@dataclass(frozen=True)
class Course:
    """Share of the full learning rate at a step: a linear warm-up, times a cosine from 1 to `end`.

    torch's `CosineAnnealingLR` ends at one rate for all groups, and does not multiply with a warm-up; hence `LambdaLR`.
    """

    steps: int
    warmup: int
    end: float

    def __call__(self, step: int) -> float:
        return warm_up(step, self.warmup) * cosine(step, self.steps, self.end)


@dataclass
class TimedCourse:
    """Share of the full learning rate where seconds, not steps, end the training; `spent` is set by its loop."""

    seconds: float
    warmup: int
    end: float
    spent: float = 0.0

    def __call__(self, step: int) -> float:
        return warm_up(step, self.warmup) * cosine(self.spent, self.seconds, self.end)


def warm_up(step: int, steps: int) -> float:
    """Rise linearly to 1 within so many steps."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def cosine(done: float, total: float, end: float) -> float:
    """Fall from 1, where nothing is done, to `end`."""
    return end + (1.0 - end) * 0.5 * (1.0 + math.cos(math.pi * done / total))
