"""Adaptation of a student to several styles that it was never trained on, with several draws of ten pairs each.

    .venv/bin/python -m benchmarks.adapt [--students latest DIGEST ...] [--styles bald gold-statue ...] [--seeds 2]
        [--seconds 60] [--held-out 16] [--data FOLDER] [--out FILE.json] [--set stage.key=value ...]

Pairs of `bald` and `afro` are the editor's; of the others, which neither editor nor student has seen, the procedural
world's own, taken from a folder as a user's would be. Seconds are of one thread's work, so that what else the machine
does changes nothing but the waiting. An arm that is made is kept: the same command goes on where it was stopped.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.rows import describe_machine
from data_catalog.config.places import data_root
from data_catalog.products.keys import STUDENT
from data_catalog.samples.encoding import encode_png
from models.pixels import to_levels
from models.procedural import raw_photo, shading
from models.procedural.geometry import Head, Material
from models.procedural.photo import RAW_SIZE_PX
from models.procedural.render import HEAD_CENTRE, HEAD_SCALE, camera_rays
from models.procedural.shading import Canvas

FIRST_PERSON = 700_000  # seed of the first person of the pairs from folders; outside the datasets
TO_LEARN = 10
BY_EDITOR = {"bald": "configs/styles/more", "afro": "configs/styles/more"}
OLD_MAY_LOSE, SHOULD_GAIN = 0.05, 0.30  # what adapting is to reach


def gold(canvas: Canvas) -> Tensor:
    """Polished gold."""
    value = canvas.albedo.mean(-1, keepdim=True) * 0.25 + 0.75
    canvas.albedo = torch.tensor((1.0, 0.80, 0.18)) * value
    canvas.specular, canvas.shininess, canvas.highlight = 0.9, 24.0, (1.0, 0.95, 0.7)
    return canvas.lit()


def blue_hair(canvas: Canvas) -> Tensor:
    """Hair, brows and beard in a strong blue."""
    for material, colour in ((Material.HAIR, 0.85), (Material.BEARD, 0.7), (Material.BROW, 0.6)):
        canvas.paint(canvas.of(material), (0.10 * colour, 0.30 * colour, colour))
    return shading.natural(canvas)


@dataclass(frozen=True)
class Drawn:
    """A style that only this benchmark draws."""

    prompt: str
    painter: Callable[[Canvas], Tensor]


DRAWN = {
    "gold-statue": Drawn("turn her into a gold statue", gold),
    "blue-hair": Drawn("give her blue hair", blue_hair),
}


@dataclass(frozen=True)
class Measured:
    """Result of one adaptation."""

    student: str
    style: str
    seed: int
    metrics: dict[str, float]

    @property
    def steps_per_second(self) -> float:
        return self.metrics["iterations"] / self.metrics["learned_s"]


def write_pairs(style: Drawn, folder: Path, count: int) -> Path:
    """input/ and edited/ photographs (RAW_SIZE_PX a side), unless they are there."""
    for number in range(FIRST_PERSON, FIRST_PERSON + count):
        photo, name = raw_photo(number), f"{number}.png"
        edited = folder / "edited" / name
        if edited.exists():
            continue
        for side in ("input", "edited"):
            (folder / side).mkdir(parents=True, exist_ok=True)
        (folder / "input" / name).write_bytes(encode_png(photo.rgb))
        edited.write_bytes(encode_png(paint_photo(number, style.painter)))
    return folder


@torch.no_grad()
def paint_photo(number: int, painter: Callable[[Canvas], Tensor]) -> np.ndarray:
    """The photograph of a person in a style that keeps the shape: (RAW_SIZE_PX, RAW_SIZE_PX, 3) uint8."""
    photo, size = raw_photo(number), 2 * RAW_SIZE_PX
    origin, directions = camera_rays(photo.label, size)
    surface = Head(photo.person.identity).meet((origin - HEAD_CENTRE) / HEAD_SCALE, directions)
    rows = ((torch.arange(size) + 0.5) / size).repeat_interleave(size)
    canvas = shading.plain_canvas(photo.person, surface, size * size, rows)
    colour = painter(canvas).clamp(0.0, 1.0)
    picture = canvas.background.clone()
    picture[surface.hit] = colour
    fine = picture.view(1, size, size, 3).permute(0, 3, 1, 2)
    smooth = torch.nn.functional.avg_pool2d(fine, 2)[0].permute(1, 2, 0)
    return to_levels(smooth)


def adapt(student: str, style: str, seed: int, overrides: Sequence[str], held_out: int) -> Measured:
    """Adapt a student, or take what an earlier call made of the same."""
    from data_catalog.config.profiles import load_settings
    from data_catalog.store.stage import Need
    from flows.lab.arms import ArmWork, keep_arm
    from flows.run.adaptation import adapt_shape
    from flows.run.products import find_student
    from tasks.lab.ablation import ARM

    chosen = [*overrides, f"adapt.pairs={TO_LEARN}", f"adapt.held_out={held_out}", f"adapt.seed={seed}"]
    if style in DRAWN:
        folder = write_pairs(DRAWN[style], data_root() / "benchmarks" / style, 2 * TO_LEARN + held_out)
        chosen += [f"adapt.pairs_folder={json.dumps(str(folder))}", f"adapt.prompt={json.dumps(DRAWN[style].prompt)}"]
    else:
        chosen.append(f"prompts.styles_dir={json.dumps(BY_EDITOR[style])}")
    learner = replace(ARM, needs=(Need("pairs"), Need("dataset"), Need("distill")))
    pins, shape = find_student(student, load_settings("demo")), adapt_shape(style, learner)
    work = ArmWork("demo", chosen, pins, shape, ["pairs", "arm"], {}, with_samples=style not in DRAWN)
    kept = keep_arm("bench-adapt", work)
    return Measured(pins[STUDENT][:8], style, seed, kept.metrics)


def show(measured: Sequence[Measured], console: Console) -> None:
    """Print a row for each student and style: the median over the seeds, and the range if there are several."""
    table = Table("student", "style", "unadapted", "adapted", "teachers", "less by", "95 %", "possible", "old styles",
                  "steps/s", box=None)  # fmt: skip
    for student, style in sorted({(each.student, each.style) for each in measured}):
        mine = [each for each in measured if (each.student, each.style) == (student, style)]
        metrics = {name: median(each.metrics[name] for each in mine) for name in mine[0].metrics}
        gains = [each.metrics["gain"] for each in mine]
        interval = f"{min(e.metrics['gain_low'] for e in mine):.0%} to {max(e.metrics['gain_high'] for e in mine):.0%}"
        ranged = f"{metrics['gain']:.0%}" + (f" ({min(gains):.0%} to {max(gains):.0%})" if len(gains) > 1 else "")
        table.add_row(
            student, style, *(f"{metrics[name]:.2f}" for name in ("lpips_before", "lpips", "lpips_teachers")),
            ranged, interval, f"{metrics['gain_possible']:.0%}", f"{metrics['old_loss']:+.1%}",
            f"{median(each.steps_per_second for each in mine):.1f}",
        )  # fmt: skip
    console.print(table)
    gains, losses = ([each.metrics[name] for each in measured] for name in ("gain", "old_loss"))
    console.print(
        f"LPIPS falls by {median(gains):.0%} in the median of {len(measured)} ({min(gains):.0%} to {max(gains):.0%}), "
        f"by {SHOULD_GAIN:.0%} or more in {sum(gain >= SHOULD_GAIN for gain in gains)}; the old styles lose "
        f"{median(losses):.1%} ({min(losses):.1%} to {max(losses):.1%}), {OLD_MAY_LOSE:.0%} at most in "
        f"{sum(loss <= OLD_MAY_LOSE for loss in losses)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    styles = [*BY_EDITOR, *DRAWN]
    parser.add_argument("--students", nargs="+", default=["latest"], help="digests, their beginnings, or latest")
    parser.add_argument("--styles", nargs="+", choices=styles, default=styles)
    parser.add_argument("--seeds", type=int, default=2, help="draws of pairs and batches")
    parser.add_argument("--seconds", type=float, default=60.0, help="of one thread's work")
    parser.add_argument("--held-out", type=int, default=16, help="pairs that are measured on")
    parser.add_argument("--data", type=Path, help="data root with the students; default: the project's")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="STAGE.KEY=VALUE")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.data is not None:
        os.environ["STILLROOM_DATA"] = str(options.data.absolute())
    overrides = [f"adapt.seconds={options.seconds}", f"adapt.looks_s=[{options.seconds / 3}]", *options.overrides]
    console, measured = Console(width=140, highlight=False), []
    for seed in range(options.seeds):
        for student in options.students:
            for style in options.styles:
                measured.append(adapt(student, style, seed, overrides, options.held_out))
                console.print(f"{measured[-1].student} {style} {seed}: less by {measured[-1].metrics['gain']:.0%}")
    show(measured, console)
    if options.out:
        arms: list[dict[str, Any]] = [vars(each) for each in measured]
        document = {"machine": describe_machine(), "seconds": options.seconds, "held_out": options.held_out}
        options.out.write_text(json.dumps(document | {"arms": arms}, indent=1) + "\n")


if __name__ == "__main__":
    main()
