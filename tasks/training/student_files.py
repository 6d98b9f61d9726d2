"""Student on disk: its weights and its sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.config.errors import UserError
from data_catalog.samples.encoding import encode_json

if TYPE_CHECKING:
    from models.three_d.student import Student

WEIGHTS, CONFIG = "student.safetensors", "config.json"


def save_student(student: Student, folder: Path) -> None:
    """Write weights and sizes; equal students give equal bytes."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in student.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    (folder / CONFIG).write_bytes(encode_json(student.config.to_dict()))


def load_student(folder: Path, device: str = "cpu") -> Student:
    """The student in a folder, ready to run."""
    from safetensors.torch import load_file

    from models.three_d.student import Student, StudentConfig

    if not (folder / WEIGHTS).is_file():
        raise UserError("there is no student here", folder=folder, hint="stillroom distill")
    config = StudentConfig.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    student = Student(config)
    student.load_state_dict(load_file(folder / WEIGHTS))
    return student.to(device).eval().requires_grad_(False)
