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
from tasks.distill import make_student, own_kinds
from tasks.evaluation.stopwatch import device_clock
from tasks.lab.claims.exam import HIGH, LOW, Bench, Exam
from tasks.progress import report
from tasks.training.batches import BatchMaker, Prompts
from tasks.training.data import Fields, SampleRef
from tasks.training.looks import Looks
from tasks.training.loop import course_of, train
from tasks.training.mirroring import learned_samples
from tasks.training.trainer import Trainer

STEPS = "steps.txt"  # a line for each step that was taken: its number, its seconds of work
LOOK = "look-{:08d}.json"
Row = dict[str, Any]


def learn(work: Work, bench: Bench, everything: bool) -> tuple[Student, list[Row]]:
    """Train an arm; returns the student, and rows of the looks on the way: step, seconds, key, portrait_id, lpips.

    everything: E_low and E_high learn, too, as fast as E_t: all start as the teacher's. The renderer stays as it is.
    """
    settings, models, own, device = work.settings, bench.models, work.settings.distill, work.settings.run.device
    learned = learned_samples(bench.samples, models.teacher, settings, work.working)
    assert models.mae is not None, "a bench has the frozen one"
    prompts = Prompts(bench.samples, models.clip, models.mae, device, own_kinds(settings))
    student = make_student(models.teacher, prompts, settings)
    for part in (*LOW, *HIGH) if everything else ():
        student.encoder.get_submodule(part).requires_grad_(True)
    maker = (LiveBatchMaker if everything else BatchMaker)(student, models.teacher, prompts, own, device)
    accelerator, judge = Accelerator(cpu=device == "cpu"), models.judges.lpips
    work.working.mkdir(parents=True, exist_ok=True)
    trainer = TimedTrainer(maker, judge, learned, own, course_of(own), accelerator, steps=work.working / STEPS)
    exam = Exam(bench, student)

    def keep_look() -> dict[str, float]:
        """Keep a look; one that an interrupted run took is the same."""
        path = work.working / LOOK.format(trainer.taken)
        if not path.exists():
            write_atomically(path, json.dumps(exam.look()).encode())
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {"val_lpips": float(np.mean([row["lpips"] for row in rows]))}

    keep_look()
    train(trainer, own, work.working, keep_look, Looks(maker, judge, learned).draw, report)
    student.eval().requires_grad_(False)
    return student, read_curve(work.working)


class TimedTrainer(Trainer):
    """Writes down what each step costs."""

    def __init__(self, *trained: Any, steps: Path) -> None:
        super().__init__(*trained)
        self.steps = steps

    def step(self, with_views: bool) -> dict[str, Any]:
        """A step, and its seconds of work: of the process on a CPU, of the wall's clock on a GPU."""
        device = str(self.maker.device)
        clock = time.process_time if device == "cpu" else device_clock(device)
        began = clock()
        losses = super().step(with_views)
        with self.steps.open("a", encoding="utf-8") as lines:
            lines.write(f"{self.taken} {clock() - began:.6f}\n")
        return losses


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
