"""The curve of a training run, and that no step waits for it."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from data_catalog.config.settings import DistillSettings, Settings
from models.judges.perceptual import Perceptual
from models.three_d import mae
from models.three_d.mae import Mae, MaeEncoder
from tasks.distill import make_student
from tasks.training.batches import BatchMaker, Prompts
from tasks.training.curve import Curve
from tasks.training.data import read_samples
from tasks.training.loop import course_of
from tasks.training.trainer import Trainer
from tests.worlds import taught
from tests.worlds.tiny import tiny_clip


def test_losses_stay_on_the_device_until_a_point_is_due(tmp_path: Path) -> None:
    teacher = taught.untrained_teacher()
    samples = read_samples(taught.write_dataset(tmp_path, teacher), tmp_path)
    settings = Settings(distill=DistillSettings(batch_size=2, triplane_iterations=1, iterations=2))
    prompts = Prompts(samples, tiny_clip(), Mae(MaeEncoder(mae.EMBEDDED)))
    student = make_student(teacher, prompts, settings).train()
    learned = [sample for sample in samples if sample.split == "train"]
    judge = Perceptual.untrained().eval()
    own = settings.distill
    maker = BatchMaker(student, teacher, prompts, own)
    trainer = Trainer(maker, judge, learned, own, course_of(own), Accelerator(cpu=True))
    curve = Curve(pending=[trainer.step(with_views) for with_views in (False, True)])
    trainer.finish()
    assert all(isinstance(value, Tensor) for step in curve.pending for name, value in step.items() if name != "lr")
    both = [float(step["loss"]) for step in curve.pending]
    values = curve.point(2, {})
    assert values["loss"] == pytest.approx(sum(both) / 2)
    assert json.loads(json.dumps(curve.rows)) == curve.rows


def test_a_checkpoint_between_two_points_keeps_their_losses_as_numbers() -> None:
    curve = Curve(pending=[{"loss": torch.tensor(1.5), "lr": 0.5}, {"loss": 2.5, "lr": 0.5}])
    assert json.loads(json.dumps(curve.read())) == [{"loss": 1.5, "lr": 0.5}, {"loss": 2.5, "lr": 0.5}]
    assert curve.point(2, {"val_l1": 0.1}) == {"val_l1": 0.1, "loss": 2.0, "lr": 0.5}
    assert curve.pending == []
