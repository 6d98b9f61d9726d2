"""Seconds per image, side by side in one run: the student against editor + teacher at several editor steps.

    .venv/bin/python -m benchmarks.student [--steps 10 20 100] [--batch 8] [--repeats 5] [--out FILE.json]

One picture at a time, and a batch; then another view of a head that is there. On one thread. Speed does not depend
on what a network has learned, so the student here starts from the teacher's weights.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.rows import RESULTS, Row, show_rows, write_results
from models import camera, procedural
from models.three_d.inference import CpuStudent, for_use
from models.three_d.student import Student
from models.zoo import zoo
from tasks.evaluation.stopwatch import time_methods

PROMPT = "turn her into a bronze statue"
TIMES = 250  # as fast as its teachers at the paper's steps
PAPER_STEPS = 100
STUDENT, NETWORK, VIEW = "student", "student, encoder in PyTorch", "student, another view"


def teachers_name(steps: int) -> str:
    return f"editor+teacher, {steps} steps"


def measure(steps: list[int], batch: int, repeats: int) -> dict[str, float]:
    """Median seconds an image of each method, one view included; a prompt is encoded once for all pictures."""
    editor, teacher, clip = (zoo.load(name, "embedded") for name in ("editor", "teacher", "clip"))
    network = Student.from_teacher(teacher).eval()
    student = for_use(network)
    label, tokens = camera.orbit_label(0.1, 0.0), clip.text_tokens([PROMPT])
    seen = [procedural.render(procedural.portrait(number), label[0], 64).rgb.numpy() for number in range(batch)]
    pictures = (np.stack(seen) * 255).astype(np.uint8)

    def signed(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def by_teachers(steps: int, count: int) -> object:
        edited = editor.edit(pictures[:count], [PROMPT] * count, range(count), steps, 2.0, 1.2)
        return teacher.render(teacher.encode(signed(edited)), label.expand(count, -1))

    def by_student(count: int, form: Student | CpuStudent = student) -> object:
        return form.render(form.encode(signed(pictures[:count]), tokens, "text"), label.expand(count, -1))

    triplane = student.encode(signed(pictures[:1]), tokens, "text").detach()
    alone: dict[str, Callable[[], object]] = {teachers_name(each): partial(by_teachers, each, 1) for each in steps}
    alone |= {
        STUDENT: partial(by_student, 1),
        NETWORK: partial(by_student, 1, network),
        VIEW: lambda: student.render(triplane, label),
        "prompt": lambda: clip.text_tokens([PROMPT]),
    }
    together = {in_batch(teachers_name(each), batch): partial(by_teachers, each, batch) for each in steps}
    together |= {in_batch(STUDENT, batch): partial(by_student, batch)}
    found = time_methods(alone, repeats, "cpu")
    for name, spent in time_methods(together, max(1, repeats // 3), "cpu").items():
        found[name] = spent / batch
    return found


def in_batch(name: str, batch: int) -> str:
    return f"{name}, in a batch of {batch}"


def rows_of(seconds: dict[str, float], steps: list[int], batch: int) -> list[Row]:
    """Milliseconds an image: the student against its teachers, alone and in a batch, and another view."""
    rows = []
    for what, named in (("", lambda name: name), (f", {batch} at once", lambda name: in_batch(name, batch))):
        ours = seconds[named(STUDENT)]
        for each in steps:
            theirs, promised = seconds[named(teachers_name(each))], each == PAPER_STEPS
            rows.append(
                Row(f"student, portrait to view{what}", "ms", 1e3 * ours, teachers_name(each), 1e3 * theirs,
                    theirs / ours, target=f"{TIMES} times" if promised else "",
                    reached=theirs / ours >= TIMES if promised else None)
            )  # fmt: skip
    ours, view = seconds[STUDENT], seconds[VIEW]
    return [*rows, Row(VIEW, "ms", 1e3 * view, "the whole way again", 1e3 * ours, ours / view)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, PAPER_STEPS])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "student.json")
    options = parser.parse_args()
    seconds = measure(options.steps, options.batch, options.repeats)
    table = Table("method", "ms per image", "times the student")
    for name, value in seconds.items():
        table.add_row(name, f"{value * 1e3:.1f}", f"{value / seconds[STUDENT]:.1f}")
    Console().print(table)
    rows = rows_of(seconds, options.steps, options.batch)
    show_rows(rows)
    write_results(options.out, {"threads": 1, "seconds": seconds}, rows)


if __name__ == "__main__":
    main()
