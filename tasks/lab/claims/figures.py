"""The pictures on the page of the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_catalog.samples.encoding import decode_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#1f5fa8", "#c8501e")
DPI = 110

Curve = Sequence[dict[str, Any]]


def draw_strips(strips: Mapping[str, Path], path: Path) -> Path:
    """Strips side by side, each under its name."""
    from matplotlib.figure import Figure

    pictures = {name: decode_rgb(strip.read_bytes()) for name, strip in strips.items()}
    height, width = next(iter(pictures.values())).shape[:2]
    side = 2.6
    figure = Figure(figsize=(side * len(pictures), side * height / width + 0.3), dpi=DPI, layout="constrained")
    for place, (name, picture) in enumerate(pictures.items(), start=1):
        axes = figure.add_subplot(1, len(pictures), place)
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.savefig(path)
    return path


def draw_curves(curves: Mapping[str, Sequence[Curve]], path: Path) -> Path:
    """LPIPS against the steps and against the seconds: each seed thin, their mean over the steps thick.

    curves: by arm, one of each seed, with rows of step, seconds and lpips.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), dpi=DPI, layout="constrained")
    for place, (across, label) in enumerate((("step", "steps"), ("seconds", "seconds of work")), start=1):
        axes = figure.add_subplot(1, 2, place)
        for colour, (name, seeds) in zip(COLOURS, curves.items(), strict=True):
            _draw_arm(axes, name, [mean_curve(rows, across) for rows in seeds], colour)
        axes.set_xlabel(label)
        axes.set_ylabel("LPIPS to the true edit, input view")
        axes.legend()
    figure.savefig(path)
    return path


def mean_curve(rows: Curve, across: str) -> np.ndarray:
    """Return (2, looks): the place of each look, and the mean of LPIPS over the samples."""
    places = sorted({row[across] for row in rows})
    means = [np.mean([row["lpips"] for row in rows if row[across] == place]) for place in places]
    return np.array([places, means])


def _draw_arm(axes: Axes, name: str, lines: Sequence[np.ndarray], colour: str) -> None:
    for line in lines:
        axes.plot(*line, color=colour, alpha=0.35, linewidth=1)
    axes.plot(*np.mean(lines, axis=0), color=colour, linewidth=2.2, marker="o", label=name)
