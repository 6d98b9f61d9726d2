"""The table of an evaluation: the means of its rows by method, by style and by kind of prompt, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_catalog.config.settings import EvaluateSettings, Settings
from tasks.evaluation.operations import counted_speedup

STUDENT, TEACHERS, NO_EDIT = "student", "editor+teacher", "no edit"
TEACHERS_AS_EDITED = "editor+teacher, edit.steps"  # in the timing, where others are timed as well
METHODS = (STUDENT, TEACHERS, NO_EDIT)
IMAGE_PROMPT = "student, image prompt"  # the same edits with a picture as the prompt; shown beside the table
SEEN_PROMPT = "student, seen prompt"  # the same edits with prompts of the training; shown beside the table
TRUE_HEAD = "true head"  # the true edit, by measures that need no truth; shown beside the table
BESIDE = (IMAGE_PROMPT, SEEN_PROMPT, TRUE_HEAD)

Row = dict[str, Any]


def make_table(rows: Sequence[Row], timing: dict[str, float], settings: Settings) -> Row:
    """The table of all samples, the same by style, and how the student compares."""
    from tasks.evaluation.metrics import bootstrap_intervals, differences, summarise

    own = settings.evaluate
    by_style: dict[str, list[Row]] = {}
    for row in rows:
        by_style.setdefault(row["style"], []).append(row)
    table = []
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        table.append({"method": method, **summarise(mine), "seconds_per_image": timing[method]})
    per_style = {style: _rows_of_style(mine, own) for style, mine in by_style.items()}
    paired = differences(*([row for row in rows if row["method"] == name] for name in (STUDENT, TEACHERS)))
    beside = {name: [row for row in rows if row["method"] == name] for name in BESIDE}
    return {
        "table": [table_row(row, per_style) for row in table],
        "per_style": per_style,
        "image_prompts": summarise(beside[IMAGE_PROMPT]) if beside[IMAGE_PROMPT] else None,
        "seen_prompts": summarise(beside[SEEN_PROMPT]) if beside[SEEN_PROMPT] else None,
        "true_heads": summarise(beside[TRUE_HEAD]) if beside[TRUE_HEAD] else None,
        "intervals": {
            method: bootstrap_intervals([r for r in rows if r["method"] == method], own.bootstrap, own.seed)
            for method in (*METHODS, *(name for name, mine in beside.items() if mine))
        },
        # The student minus its teachers, edit by edit: means, and their intervals over portraits.
        "difference": {"means": summarise(paired), "intervals": bootstrap_intervals(paired, own.bootstrap, own.seed)},
        "timing": timing,
        "speedup": timing[TEACHERS] / timing[STUDENT],
        "timed_editor_steps": own.timed_editor_steps or settings.edit.steps,  # of that speedup
        "edit_steps": settings.edit.steps,
        "timing_repeats": own.timing_repeats,
        "counted_speedup": counted_speedup(own.timed_editor_steps or settings.edit.steps),  # at the paper's size
        "pose_pairs": own.pose_pairs,  # of the measure 3D
        "speedup_as_edited": timing.get(TEACHERS_AS_EDITED, timing[TEACHERS]) / timing[STUDENT],
        "samples": len({row["key"] for row in rows}),
        "lpips_to": "true styled head" if all(row["truth"] for row in rows) else "pseudo-label where truth is unknown",
    }


def _rows_of_style(rows: Sequence[Row], own: EvaluateSettings) -> list[Row]:
    """A table of one style, with intervals and the improvement over `no edit`."""
    from tasks.evaluation.metrics import bootstrap_intervals, improvement, summarise

    of_method = {method: [row for row in rows if row["method"] == method] for method in METHODS}
    means = {method: summarise(mine) for method, mine in of_method.items()}
    baseline = means[NO_EDIT]["l1_changed"]
    return [
        {
            "method": method,
            **means[method],
            "improvement": improvement(means[method]["l1_changed"], baseline),
            "intervals": bootstrap_intervals(mine, own.bootstrap, own.seed),
        }
        for method, mine in of_method.items()
    ]


def table_row(row: Row, per_style: dict[str, list[Row]]) -> Row:
    """A row of the main table: `improvement` is the mean over styles of how much less error than `no edit`."""
    mine = [own["improvement"] for rows in per_style.values() for own in rows if own["method"] == row["method"]]
    known = [value for value in mine if value is not None]
    return {**row, "improvement": float(np.mean(known)) if known else None}


def headline(table: Row) -> dict[str, float]:
    """Return the metrics for the record."""
    metrics = {"speedup": table["speedup"], "speedup_as_edited": table["speedup_as_edited"]}
    for row in table["table"]:
        name = row["method"].replace("+", "_").replace(" ", "_")
        metrics |= {f"{name}.{key}": value for key, value in row.items() if isinstance(value, float)}
    return metrics
