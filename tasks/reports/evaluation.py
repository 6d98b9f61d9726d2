"""Evaluation in a report: the table, and per style the student beside its teachers and the truth."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_catalog.samples.encoding import decode_rgb
from tasks.evaluate import FIGURE, TABLE
from tasks.evaluation.table import IMAGE_PROMPT, METHODS, STUDENT, TEACHERS, TRUE_HEAD
from tasks.pictures.inline import embed_picture

Row = dict[str, Any]


class Measure(NamedTuple):
    """A column of the table. `better` is 1 where higher is better, -1 where lower is, 0 where neither."""

    name: str
    title: str
    hint: str
    digits: int = 3
    better: int = 0
    percent: bool = False


MEASURES = (
    Measure("id", "ID", "cosine of the edited face and the portrait's", better=1),
    Measure("clip", "CLIP", "cosine of the edited picture and the prompt's words", better=1),
    Measure("clip_image", "CLIP picture", "cosine of the edited picture and the picture that was the prompt", better=1),
    Measure(
        "three_d",
        "3D",
        "cosine of the face between two views of a head from random poses of training portraits",
        better=1,
    ),
    Measure("lpips", "LPIPS", "to the true styled head where it is known, else to the pseudo-label", better=-1),
    Measure("l1_changed", "L1 of the edit", "inside the region that the true edit changes, over all views", 4, -1),
    Measure("improvement", "vs no edit", "how much less L1 of the edit than without an edit", 0, 1, percent=True),
    Measure("psnr_input", "PSNR input", "dB to the true styled head, from the portrait's camera", 1, 1),
    Measure("psnr_novel", "PSNR novel", "dB to the true styled head, from the sides", 1, 1),
    Measure("depth_error", "depth error", "median, relative, over all views of the true styled head", 4, -1),
    Measure("silhouette_iou", "silhouette", "intersection over union with the true styled head", 3, 1),
    Measure("seconds_per_image", "s / image", "mean, from portrait and words to one view", 4, -1),
)

# Values of the table's document that the report's text names.
TOLD = ("timed_editor_steps", "edit_steps", "speedup_as_edited", "counted_speedup", "timing_repeats", "pose_pairs")


def describe_evaluation(folder: Path) -> Row:
    """Return the evaluation in `folder` as the template `evaluation.html.j2` needs it."""
    found = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    beside = ((IMAGE_PROMPT, found["image_prompts"]), (TRUE_HEAD, found["true_heads"]))
    rows = [*found["table"], *({"method": method, **means} for method, means in beside if means)]
    shown = [each for each in MEASURES if any(row.get(each.name) is not None for row in rows)]
    return {
        "samples": found["samples"],
        "speedup": found["speedup"],
        **{name: found[name] for name in TOLD},
        "lpips_to": found["lpips_to"],
        "measures": shown,
        "figure": embed_picture(decode_rgb((folder / FIGURE).read_bytes())),
        "rows": show_table(rows, shown, found["intervals"]),
        "difference": show_difference(found["difference"], shown),
        "styles": [
            show_style(style, found["per_style"][style], pictures, folder)
            for style, pictures in sorted(found["pictures"].items())
        ],
    }


def show_table(table: Sequence[Row], measures: Sequence[Measure], intervals: Row) -> list[Row]:
    """Return rows of cells as text. The best of a column is marked; "no edit" never is: it keeps everything."""
    rows = []
    for row in table:
        cells = []
        for measure in measures:
            value, interval = row.get(measure.name), intervals[row["method"]].get(measure.name)
            spread = " to ".join(format_value(end, measure) for end in interval) if interval else ""
            rivals = [other[measure.name] for other in table if other["method"] in (STUDENT, TEACHERS)]
            known = [rival * measure.better for rival in rivals if rival is not None]
            rival = row["method"] in (STUDENT, TEACHERS)
            best = rival and value is not None and value * measure.better == max(known)
            cells.append({"text": format_value(value, measure), "spread": spread, "best": best})
        rows.append({"method": row["method"], "cells": cells})
    return rows


def show_difference(difference: Row, measures: Sequence[Measure]) -> list[Row]:
    """Cells as text of the student minus its teachers; `sure` where the interval does not contain 0."""
    cells = []
    for measure in measures:
        value, interval = (difference[part].get(measure.name) for part in ("means", "intervals"))
        if value is None or interval is None:
            cells.append({"text": "", "spread": "", "sure": False})
            continue
        low, text, high = (f"{each:+.{measure.digits}f}" for each in (interval[0], value, interval[1]))
        cells.append({"text": text, "spread": f"{low} to {high}", "sure": interval[0] > 0 or interval[1] < 0})
    return cells


def format_value(value: float | None, measure: Measure) -> str:
    """A value with its column's digits, or a dash."""
    if value is None:
        return "\N{EN DASH}"
    return f"{100 * value:.0f} %" if measure.percent else f"{value:.{measure.digits}f}"


def show_style(style: str, rows: Sequence[Row], pictures: Row, folder: Path) -> Row:
    """Return a style's numbers, comparison and turntable."""
    by_method = {row["method"]: row for row in rows}
    # A picture was enlarged pixel by pixel; compressed once more it is a tenth of the PNG and looks the same.
    comparison = decode_rgb((folder / pictures["comparison"]).read_bytes())
    turntable = base64.b64encode((folder / pictures["turntable"]).read_bytes()).decode()
    return {
        "slug": style,
        "improvement": {method: by_method[method].get("improvement") for method in METHODS},
        "lpips": {method: by_method[method]["lpips"] for method in METHODS},
        "comparison": embed_picture(comparison),
        "turntable": f"data:image/gif;base64,{turntable}",
        **{name: pictures[name] for name in ("columns", "keys", "prompts", "turntable_columns")},
    }
