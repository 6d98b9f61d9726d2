"""Training of the claims' arms: as in the stage distill, but timed, measured on the way, and optionally in full."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.stage import Work
from models.pixels import signed
from models.three_d.student import Features, Student
from tasks.distill import make_student
from tasks.lab.claims.exam import Bench, Exam
from tasks.progress import report
from tasks.training.batches import BatchMaker, Prompts
from tasks.training.data import Fields, SampleRef
from tasks.training.loop import Trainer
from tasks.training.mirroring import learned_samples
from tasks.training.rates import make_optimizer

STEPS = "steps.txt"  # a line for each step that was taken: its number, its seconds of work
LOOK = "look-{:08d}.json"
BRANCHES = ("encoder", "decoder", "F_encoder", "EHigh_encoder")  # E_low (three parts) and E_high

Row = dict[str, Any]


def learn(work: Work, bench: Bench, everything: bool) -> tuple[Student, list[Row]]:
    """Train an arm; returns the student, and rows of the looks on the way: step, seconds, key, portrait_id, lpips.

    everything: E_low and E_high learn, too.
    """
    settings, models = work.settings, bench.models
    learned = learned_samples(bench.samples, models.teacher, settings, work.working)
    prompts = Prompts.read(bench.samples, models.clip, models.mae, settings.run.device)
    student = make_student(models.teacher, prompts, settings)
    trainer = (WholeTrainer if everything else WatchedTrainer)(work, bench, Exam(bench, student), prompts, learned)
    trainer.watch()
    trainer.run(work.working, report)
    student.eval().requires_grad_(False)
    return student, read_curve(work.working)


class WatchedTrainer(Trainer):
    """Trainer that records each step's cost, and measures on the exam's samples instead of the val split."""

    def __init__(self, work: Work, bench: Bench, exam: Exam, prompts: Prompts, learned: Sequence[SampleRef]) -> None:
        settings, models = work.settings, bench.models
        device, accelerator = settings.run.device, Accelerator(cpu=settings.run.device == "cpu")
        teachers = models.teacher, models.judges.lpips
        super().__init__(exam.student, *teachers, prompts, learned, (), settings.distill, device, accelerator)
        self.exam, self.working = exam, work.working
        self.working.mkdir(parents=True, exist_ok=True)

    def take_step(self) -> dict[str, Any]:
        """A step, and its seconds of work."""
        began = time.process_time()
        losses = super().take_step()
        with (self.working / STEPS).open("a", encoding="utf-8") as lines:
            lines.write(f"{self.step + 1} {time.process_time() - began:.6f}\n")
        return losses

    def watch(self) -> dict[str, float]:
        """Keep a look; one that an interrupted run took is the same."""
        path = self.working / LOOK.format(self.step)
        if not path.exists():
            write_atomically(path, json.dumps(self.exam.look()).encode())
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {"val_lpips": float(np.mean([row["lpips"] for row in rows]))}


class WholeTrainer(WatchedTrainer):
    """Trainer that also trains E_low and E_high, at E_t's rate: all start as the teacher's. The renderer is frozen."""

    def __init__(self, work: Work, bench: Bench, exam: Exam, prompts: Prompts, learned: Sequence[SampleRef]) -> None:
        super().__init__(work, bench, exam, prompts, learned)
        for part in BRANCHES:
            self.student.encoder.get_submodule(part).requires_grad_(True)
        self.parameters = self.student.trainable_parameters()
        self.optimizer = self.accelerator.prepare(make_optimizer(self.student, self.settings))
        self.maker.loader.close()
        self.maker = LiveBatchMaker(self.student, bench.models.teacher, prompts, self.settings, self.maker.device)


class LiveBatchMaker(BatchMaker):
    """Batch maker that computes the branches' features at every step, with gradients."""

    def features(self, samples: Sequence[SampleRef], read: Sequence[Fields]) -> Features:
        portraits = signed(np.stack([fields.portrait for fields in read]), self.device)
        return Features(*self.student.encoder.branches(portraits))


def read_curve(working: Path) -> list[Row]:
    """The looks in order, each with the seconds of work until then. A step that was taken again counts once."""
    lines = (working / STEPS).read_text(encoding="utf-8").splitlines()
    spent = {int(step): float(seconds) for step, seconds in (line.split() for line in lines if line.count(" ") == 1)}
    rows = []
    for path in sorted(working.glob(LOOK.format(0).replace("00000000", "*"))):
        step = int(path.stem.rpartition("-")[2])
        seconds = sum(each for taken, each in spent.items() if taken <= step)
        looked = json.loads(path.read_text(encoding="utf-8"))
        rows += [{"step": step, "seconds": seconds} | row for row in looked]
    return rows
