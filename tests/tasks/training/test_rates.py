"""Courses of the learning rate, as torch's scheduler applies them: every group in its share of its own rate."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from tasks.training.rates import Course, TimedCourse


def test_every_group_warms_up_and_falls_to_its_own_share() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 0.01)]
    optimizer = torch.optim.AdamW(groups)
    schedule = LambdaLR(optimizer, Course(steps=10, warmup=4, end=0.1))
    seen = []
    for _ in range(11):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    first = [rates[0] for rates in seen]
    assert [rates[1] for rates in seen] == pytest.approx([rate / 100 for rate in first])
    falling = [0.1 + 0.45 * (1 + math.cos(math.pi * step / 10)) for step in range(11)]
    assert first == pytest.approx([min(1, (step + 1) / 4) * share for step, share in enumerate(falling)])
    assert first[-1] == pytest.approx(0.1)


def test_where_seconds_end_a_training_the_rate_falls_with_them_and_a_checkpoint_keeps_them() -> None:
    courses = [TimedCourse(seconds=8.0, warmup=0, end=0.1) for _ in range(2)]
    optimizers = [torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0) for _ in courses]
    schedule, resumed = (LambdaLR(optimizer, course) for optimizer, course in zip(optimizers, courses, strict=True))
    optimizers[0].step()
    courses[0].spent = 4.0
    schedule.step()
    assert optimizers[0].param_groups[0]["lr"] == pytest.approx(0.55)
    resumed.load_state_dict(schedule.state_dict())
    assert courses[1].spent == 4.0
