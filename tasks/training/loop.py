"""The loop of a training: so many steps, with points of the curve, looks, pictures and checkpoints between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from data_catalog.config.settings import DistillSettings
from tasks.progress import Bar
from tasks.training.checkpoints import Checkpoints
from tasks.training.curve import Curve
from tasks.training.rates import Course
from tasks.training.trainer import Trainer

Measure = Callable[[], dict[str, float]]
Draw = Callable[[Path, int], Path]
OnProgress = Callable[[int, int, dict[str, float], dict[str, Path], int | None], None]
FIRST_LOSS = "loss_of_triplanes"


def course_of(settings: DistillSettings) -> Course:
    """The course of the learning rates over all iterations."""
    return Course(settings.iterations, settings.warmup, settings.lr_end_fraction)


def train(
    trainer: Trainer,
    settings: DistillSettings,
    working: Path,
    measure: Measure,
    draw: Draw,
    on_progress: OnProgress | None = None,
) -> Curve:
    """Take steps to the last iteration, from the newest checkpoint in `working`; returns the curve.

    measure: numbers of a look, for the curve.  draw: writes a picture of the student after so many steps.
    """
    curve, main = Curve(), trainer.accelerator.is_main_process
    working.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(working, {"trainer": trainer, "curve": curve}, trainer.maker.device)
    checkpoints.resume()
    trainer.student.train()
    total, cheap = settings.iterations, settings.triplane_iterations  # the first steps compare triplanes alone
    cheap = cheap if cheap < total else 0
    bar = Bar(total=total, initial=trainer.taken, until=cheap, desc="distill", disable=None if main else True)
    while trainer.taken < total:
        curve.pending.append(trainer.step(with_views=trainer.taken >= settings.triplane_iterations))
        trainer.schedule.step()
        bar.update()
        step, final = trainer.taken, trainer.taken == total
        if final:
            trainer.take_average()
        look = final or step % settings.grid_every == 0
        if look or step % settings.log_every == 0:
            values = curve.point(step, measure() if look else {})
            pictures = {"samples": draw(working, step)} if look and main else {}
            if main and on_progress is not None:
                on_progress(step, total, told(values), pictures, cheap if step < cheap else None)
            bar.set_postfix({"loss": f"{values['loss']:.4f}"})
        if main and (final or step % settings.checkpoint_every == 0):
            checkpoints.save(step)
    bar.close()
    trainer.finish()
    return curve


def told(values: dict[str, float]) -> dict[str, float]:
    """Name the loss of the first steps, which is of triplanes alone, as a series of its own."""
    return values if "loss_view" in values else {FIRST_LOSS if n == "loss" else n: v for n, v in values.items()}
