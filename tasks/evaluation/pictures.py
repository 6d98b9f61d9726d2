"""The pictures of an evaluation: per style a sheet of portraits beside their edits, and a turntable of all methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.camera import orbit_label
from tasks.evaluation.methods import Evaluation
from tasks.evaluation.metrics import render_views
from tasks.evaluation.table import METHODS, STUDENT, TEACHERS
from tasks.pictures.sheets import contact_sheet, write_gif, write_png
from tasks.training.data import SampleRef, read_fields

TURN_YAW = 0.5  # rad, each side of a turntable

Row = dict[str, Any]


def draw_style(evaluation: Evaluation, style: str, samples: Sequence[SampleRef], folder: Path) -> Row:
    """Draw a contact sheet and a turntable of a style; returns their contents.

    Rows: portrait, truth (if known), editor+teacher, student, the student from both sides.
    """
    truths = evaluation.find_truths(samples)
    columns = ["portrait", "pseudo-label", "true edit", TEACHERS, STUDENT, "student left", "student right"]
    if not truths:
        columns.remove("true edit")
    rows, opposite = [], 1 + evaluation.settings.evaluate.novel_views // 2
    for sample in samples:
        fields = read_fields(sample)
        seen = evaluation.views(sample, fields, evaluation.all_cameras(sample))
        row = [fields.portrait, fields.pseudo_label]
        row += [truths[sample.key].pictures[0]] if truths else []
        rows.append([*row, seen[TEACHERS].pictures[0], *seen[STUDENT].pictures[[0, 1, opposite]]])
    scale = max(1, 128 // rows[0][0].shape[0])
    sheet = write_png(folder / f"comparison-{style}.png", contact_sheet(rows, scale))
    turn = write_gif(folder / f"turntable-{style}.gif", turntable(evaluation, samples[0]), scale)
    keys, prompts = [sample.key for sample in samples], [sample.prompt for sample in samples]
    shown = {"columns": columns, "keys": keys, "prompts": prompts, "turntable_columns": list(METHODS)}
    return {"comparison": sheet.name, "turntable": turn.name} | shown


def turntable(evaluation: Evaluation, sample: SampleRef) -> list[np.ndarray]:
    """Frames with the student, its teachers and the unedited head side by side, turning left and right."""
    frames = evaluation.settings.evaluate.turntable_frames
    cameras = orbit_label(TURN_YAW * torch.sin(torch.arange(frames) * (2 * torch.pi / frames)), 0.0)
    fields, teacher = read_fields(sample), evaluation.models.teacher
    turns = [
        render_views(evaluation.models.student, evaluation.edit(fields, sample.prompt), cameras),
        render_views(teacher, evaluation.taught(fields), cameras),
        render_views(teacher, evaluation.encode(fields.portrait), cameras),
    ]
    return [contact_sheet([pictures]) for pictures in zip(*turns, strict=True)]
