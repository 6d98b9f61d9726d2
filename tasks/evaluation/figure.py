"""Figure of an evaluation: every measure, by method and by style, with its 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.evaluation.table import IMAGE_PROMPT, METHODS, NO_EDIT, SEEN_PROMPT, STUDENT, TEACHERS, TRUE_HEAD

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Title of each panel, and its better direction.
PANELS = {
    "id": "ID, higher is better",
    "clip": "CLIP, higher is better",
    "three_d": "3D, higher is better",
    "lpips": "LPIPS, portrait's camera, lower is better",
    "lpips_novel": "LPIPS, novel views, lower is better",
    "l1_changed": "L1 where the edit is, lower is better",
    "psnr_input": "PSNR, portrait's camera, dB, higher is better",
    "psnr_novel": "PSNR, novel views, dB, higher is better",
    "depth_error": "depth error, relative, lower is better",
    "silhouette_iou": "silhouette, IoU, higher is better",
}
COLOURS = {STUDENT: "#1f5fa8", TEACHERS: "#c8501e", NO_EDIT: "#8a8a8a", TRUE_HEAD: "#111111"}
FURTHER = {SEEN_PROMPT: "all, words of the training", IMAGE_PROMPT: "all, asked by a picture"}  # of the student
COLUMNS = 5
DPI = 100

Row = dict[str, Any]
Point = tuple[float, list[float]]


def draw_figure(table: Mapping[str, Any], path: Path) -> Path:
    """Draw the document of `make_table`; a measure without values has no panel."""
    from matplotlib.figure import Figure

    known = {name: title for name, title in PANELS.items() if table["table"][0].get(name) is not None}
    lines = list_lines(table)
    rows = -(-len(known) // COLUMNS)
    figure = Figure(figsize=(3.2 * COLUMNS, (0.9 + 0.24 * len(lines)) * rows + 0.6), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for axes in grid.flat[len(known) :]:
        axes.set_axis_off()
    for axes, (name, title) in zip(grid.flat, known.items(), strict=False):
        _draw_panel(axes, lines, name, title)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(COLOURS), frameon=False)
    figure.suptitle(
        f"{table['samples']} edits of held-out portraits; lines are 95 % intervals over portraits", fontsize=10
    )
    figure.savefig(path)
    return path


def list_lines(table: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Point]]]:
    """By line of a panel (all, further kinds of prompt, each style) and method: measure to mean and interval."""
    every, intervals = {row["method"]: row for row in table["table"]}, table["intervals"]
    lines = {"all": {method: _points(every[method], intervals[method]) for method in METHODS}}
    if table["true_heads"]:
        lines["all"][TRUE_HEAD] = _points(table["true_heads"], intervals[TRUE_HEAD])
    for name, means in ((SEEN_PROMPT, table["seen_prompts"]), (IMAGE_PROMPT, table["image_prompts"])):
        if means:
            lines[FURTHER[name]] = {STUDENT: _points(means, intervals[name])}
    for style, rows in sorted(table["per_style"].items()):
        lines[style] = {row["method"]: _points(row, row["intervals"]) for row in rows}
    return lines


def _points(means: Row, intervals: Mapping[str, Any]) -> dict[str, Point]:
    return {name: (means[name], intervals[name]) for name in PANELS if means.get(name) is not None}


def _draw_panel(axes: Axes, lines: Mapping[str, Mapping[str, Mapping[str, Point]]], name: str, title: str) -> None:
    for number, (method, colour) in enumerate(COLOURS.items()):
        places = {place: own[method][name] for place, own in enumerate(lines.values()) if name in own.get(method, {})}
        values = [value for value, _ in places.values()]
        spread = [
            [value - interval[0] for value, interval in places.values()],
            [interval[1] - value for value, interval in places.values()],
        ]
        heights = [place + 0.22 * (number - 1) for place in places]
        axes.errorbar(values, heights, xerr=spread, fmt="o", markersize=3, linewidth=1.2,
                      color=colour, label=method)  # fmt: skip
    axes.set_yticks(range(len(lines)), list(lines), fontsize=8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_title(title, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
