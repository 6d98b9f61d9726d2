"""Seconds per image, side by side in one run: the student against editor + teacher at several editor steps.

    .venv/bin/python -m benchmarks.student [--steps 20 40 100] [--repeats 5] [--out FILE.json]

Speed does not depend on what a network has learned, so the student here starts from the teacher's weights.
"""

import argparse
import json
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from models import camera, procedural, zoo
from models.inference import CpuStudent, for_use
from models.student import Student
from tasks.evaluation.stopwatch import time_methods

PROMPT = "turn her into a bronze statue"


def measure(steps: list[int], repeats: int) -> dict[str, float]:
    """Median seconds of each method for one picture, one view included; a prompt is encoded once for all pictures."""
    editor, teacher, clip = (zoo.load(name, "embedded") for name in ("editor", "teacher", "clip"))
    network = Student.from_teacher(teacher).eval()
    student = for_use(network)
    label = camera.orbit_label(0.1, 0.0)
    picture = (procedural.render(procedural.portrait(1), label[0], 64).rgb.numpy() * 255).astype(np.uint8)[None]

    def signed(images: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def by_teachers(count: int) -> object:
        edited = editor.edit(picture, [PROMPT], [0], count, 2.0, 1.2)
        return teacher.render(teacher.encode(signed(edited)), label)

    tokens = clip.text_tokens([PROMPT])

    def by_student(form: Student | CpuStudent = student) -> object:
        return form.render(form.encode(signed(picture), tokens, "text"), label)

    triplane = student.encode(signed(picture), tokens, "text").detach()
    methods: dict[str, Callable[[], object]] = {
        f"editor+teacher, {count} steps": partial(by_teachers, count) for count in steps
    }
    methods |= {
        "student": by_student,
        "student, encoder in PyTorch": partial(by_student, network),
        "student, another view": lambda: student.render(triplane, label),
        "prompt": lambda: clip.text_tokens([PROMPT]),
    }
    return time_methods(methods, repeats, "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 40, 100])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    seconds = measure(options.steps, options.repeats)
    table = Table("method", "ms per image", "times the student")
    for name, value in seconds.items():
        table.add_row(name, f"{value * 1e3:.1f}", f"{value / seconds['student']:.1f}")
    Console().print(table)
    if options.out:
        document = {"machine": platform.processor() or platform.machine(), "threads": 1}
        options.out.write_text(json.dumps(document | {"seconds": seconds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
