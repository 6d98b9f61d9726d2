"""Time of the student's training steps by part: waiting for data, forward, renderer, losses, backward, optimiser.

    .venv/bin/python -m benchmarks.distill [--data DATA_ROOT] [--steps 12] [--set distill.lr=0.001] [--out FILE.json]

The trainer is the one of `stillroom distill`, with the demo's settings, on one thread. Its samples are those of the
newest dataset of DATA_ROOT; without one, a few are made first. `kept` finds all samples in memory, as the demo does
after its first epoch, and computes in bfloat16 where the processor does; `read ahead` and `read when needed` keep none,
as where a dataset does not fit: each is read, decoded and seen by the frozen networks again.
"""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from time import perf_counter as now
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from benchmarks.rows import RESULTS, Row, show_rows, write_results
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.products.snapshot import open_snapshot
from models.zoo import zoo
from tasks.distill import Networks, make_student
from tasks.training import forward
from tasks.training import trainer as training
from tasks.training.batches import BatchMaker, Prompts
from tasks.training.curve import Curve
from tasks.training.data import SampleRef, StepDraw, read_samples
from tasks.training.loop import course_of
from tasks.training.trainer import Trainer
from tests.worlds import taught  # the demo's data in small, for who has none

PARTS = ("waiting for data", "frozen networks", "forward", "renderer", "losses", "backward", "optimiser", "other")
MOST_WAITING = 0.03  # of a step
WARM_UP = 2  # steps


class Parts:
    """Seconds by part. Time in a nested part counts for that part only; a GPU is synchronised at both ends."""

    def __init__(self, device: str) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._device, self._open = device, ["other"]
        self._since = now()

    @contextmanager
    def part(self, name: str) -> Any:
        self.turn()
        self._open.append(name)
        try:
            yield
        finally:
            self.turn()
            self._open.pop()

    def turn(self) -> None:
        """Close the time until now; it belongs to the innermost part."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        moment = now()
        self.seconds[self._open[-1]] += moment - self._since
        self._since = moment

    def watch(self, owner: Any, function: str, name: str) -> None:
        """Count the calls of a function, a method or a module for a part, from now on."""
        called: Callable[..., Any] = getattr(owner, function)

        @wraps(called)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return called(*args, **kwargs)

        setattr(owner, function, timed)

    def start(self) -> None:
        """Forget what has been counted."""
        self.turn()
        self.seconds = dict.fromkeys(PARTS, 0.0)


@contextmanager
def watched(trainer: Trainer, device: str) -> Any:
    """The parts of the trainer's steps."""
    parts = Parts(device)
    functions = [
        (forward, "render_patches", "renderer"),
        (training, "distillation_loss", "losses"),
        (training, "triplane_loss", "losses"),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in functions]
    for module, name, part in functions:
        parts.watch(module, name, part)
    parts.watch(trainer.maker.loader, "take", "waiting for data")
    parts.watch(trainer.maker, "make", "frozen networks")
    parts.watch(trainer.student, "attend", "forward")
    parts.watch(trainer.student, "lift", "forward")
    parts.watch(trainer.accelerator, "backward", "backward")
    parts.watch(trainer.accelerator, "clip_grad_norm_", "optimiser")
    parts.watch(trainer.optimizer, "step", "optimiser")
    try:
        yield parts
    finally:
        for module, name, function in before:
            setattr(module, name, function)


def measure(
    settings: Settings, networks: Networks, prompts: Prompts, learned: list[SampleRef], steps: int, ahead: bool = True
) -> dict[str, float]:
    """Seconds a step by part, after the first ones and, where samples are kept, after a whole epoch."""
    own, device = settings.distill, settings.run.device
    student = make_student(networks.teacher, prompts, settings).train()
    maker = BatchMaker(student, networks.teacher, prompts, own, device)
    accelerator, curve = Accelerator(cpu=device == "cpu"), Curve()
    trainer = Trainer(maker, networks.perceptual, learned, own, course_of(own), accelerator)
    if not ahead:
        trainer.maker.read_ahead = lambda *_: None  # type: ignore[method-assign]
    every_view = tuple(range(trainer.stored_views))
    for sample in learned if own.memory_mb else []:  # as after the first epoch
        trainer.maker.make([sample], StepDraw((0,), (None,), (every_view,), 0))
    with watched(trainer, device) as parts:
        for step in range(WARM_UP + steps):
            if step == WARM_UP:
                parts.start()
            curve.pending.append(trainer.step(with_views=step >= own.triplane_iterations))
            trainer.schedule.step()
        curve.read()
        seconds = {name: spent / steps for name, spent in parts.seconds.items()}
    trainer.maker.loader.close()
    return seconds


def run(settings: Settings, root: Path, folder: Path, steps: int) -> dict[str, dict[str, float]]:
    """Seconds by part, of steps that compare triplanes and of those that compare views, by how samples come."""
    names = ("teacher", "lpips", "clip", "mae")
    networks = Networks(*(zoo.load(name, settings.world, settings.run.device) for name in names))
    samples = read_samples(folder, root)
    learned = [sample for sample in samples if sample.split == "train"]
    prompts = Prompts(samples, networks.clip, networks.mae, settings.run.device)
    measured = {}
    for kind, triplanes in (("triplanes", WARM_UP + steps), ("views", 0)):
        usual, enough = settings.distill.precision, settings.distill.memory_mb
        for name, memory_mb, ahead, precision in (
            ("kept", enough, True, usual),
            ("kept, float32", enough, True, "float32"),
            ("read ahead", 0, True, usual),
            ("read when needed", 0, False, usual),
        ):
            change: dict[str, Any] = {"triplane_iterations": triplanes, "iterations": WARM_UP + steps}
            change |= {"memory_mb": memory_mb, "precision": precision}
            chosen = settings.model_copy(update={"distill": settings.distill.model_copy(update=change)})
            measured[f"{kind}, {name}"] = measure(chosen, networks, prompts, learned, steps, ahead)
    return measured


def rows_of(measured: dict[str, dict[str, float]]) -> list[Row]:
    """Waiting as a share of the step, against samples read when they are needed; and what half precision saves."""
    shares = {name: 100 * parts["waiting for data"] / sum(parts.values()) for name, parts in measured.items()}
    rows = []
    for kind in ("triplanes", "views"):
        for name in ("kept", "read ahead"):
            ours, theirs = shares[f"{kind}, {name}"], shares[f"{kind}, read when needed"]
            rows.append(
                Row(f"step comparing {kind}, samples {name}: waiting for data", "%", ours, "read when needed", theirs,
                    limit=0.0, target=f"at most {100 * MOST_WAITING:g} %", reached=ours <= 100 * MOST_WAITING)
            )  # fmt: skip
        halves, whole = (sum(measured[f"{kind}, {name}"].values()) for name in ("kept", "kept, float32"))
        rows.append(
            Row(f"step comparing {kind}, samples kept", "ms", 1e3 * halves, "float32", 1e3 * whole, whole / halves)
        )
    return rows


def show(measured: dict[str, dict[str, float]]) -> None:
    table = Table("step", "ms", *PARTS, box=None)
    for name, parts in measured.items():
        table.add_row(name, f"{1e3 * sum(parts.values()):.0f}", *(f"{1e3 * parts[part]:.1f}" for part in PARTS))
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data root with a dataset of the embedded world")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], help="a setting, as of stillroom")
    parser.add_argument("--out", type=Path, default=RESULTS / "distill.json")
    options = parser.parse_args()
    settings = load_settings("demo", options.set)
    torch.set_num_threads(settings.run.threads)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.data or Path(temporary)
        if options.data:
            folder = open_snapshot(root).folder
        else:
            folder = taught.write_dataset(root, zoo.load("teacher", "embedded"))
        measured = run(settings, root, folder, options.steps)
    show(measured)
    rows = rows_of(measured)
    show_rows(rows)
    about = {"steps": options.steps, "settings": settings.distill.model_dump(mode="json"), "seconds_a_step": measured}
    write_results(options.out, about, rows)


if __name__ == "__main__":
    main()
