"""A training curve as an SVG drawing that follows the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 700, 200
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 24  # margins around the plot
TICKS = (1, 2, 5)  # of each power of ten
SMOOTHED = 9  # points, a tenth of the curve at most

Point = dict[str, float]


@dataclass(frozen=True)
class Curve:
    """Training curve in the drawing's own units."""

    faint: str  # points of a polyline, "x,y x,y ..."
    line: str  # the same, smoothed
    rows: list[tuple[float, str]]  # height and label of the grid's lines
    last_step: int
    first_step: int


def draw_curve(points: Sequence[Point]) -> Curve | None:
    """Return the loss over the steps, on a logarithmic scale; None if there are too few points.

    points: in the order of writing. A killed training repeats some steps: the later value counts.
    """
    kept: list[Point] = []
    for point in points:
        while kept and kept[-1]["step"] >= point["step"]:
            kept.pop()
        kept.append(point)
    if len(kept) < 2:
        return None
    steps, losses = (np.array([point[name] for point in kept], dtype=np.float64) for name in ("step", "loss"))
    levels = np.log10(np.maximum(losses, 1e-6))
    bottom, top = levels.min() - 0.03, levels.max() + 0.03
    x = LEFT + (WIDTH - LEFT - RIGHT) * (steps - steps[0]) / (steps[-1] - steps[0])

    def height(level: np.ndarray | float) -> np.ndarray | float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - level) / (top - bottom)

    ticks = [factor * 10.0**power for power in range(-6, 4) for factor in TICKS]
    rows = [(float(height(np.log10(tick))), f"{tick:g}") for tick in ticks if bottom <= np.log10(tick) <= top]
    return Curve(
        _polyline(x, height(levels)), _polyline(x, height(_smooth(levels))), rows, int(steps[-1]), int(steps[0])
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running mean whose window shrinks at the ends."""
    half = min(SMOOTHED, len(values) // 10) // 2
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _polyline(x: np.ndarray, y: np.ndarray | float) -> str:
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in zip(x, np.atleast_1d(y), strict=True))
