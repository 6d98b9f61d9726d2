"""Calibrated gates as files: each limit's place among its scores, as numbers and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_catalog.config.settings import SelectSettings
from data_catalog.samples.encoding import encode_json
from data_catalog.store.stage import Work
from tasks.gating.gates import GATES, Candidate, Gate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS, PLOT = "calibration.json", "calibration.png"
LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
COLUMNS = 3  # of the plot
BINS = 20


def write_calibration(
    work: Work, style: str, pool: Sequence[Candidate], limits: dict[str, float], settings: SelectSettings
) -> None:
    """calibration.json and calibration.png beside a selection. pool: the samples that set the limits."""
    gates = [gate for gate in GATES if gate.name in limits]
    scores = {gate.name: np.array([value for row in pool if (value := gate.value(row)) is not None]) for gate in gates}
    places = {row.place for row in pool}
    blocks = [each for each in work.inputs["score"] if each.partition.place in places]
    document = {
        "style": style,
        "quantile": settings.quantile,
        "samples": len(pool),
        "made_from": {each.partition.key: each.digest for each in blocks},
        "gates": [describe(gate, limits[gate.name], scores[gate.name]) for gate in gates],
    }
    (work.folder / NUMBERS).write_bytes(encode_json({"style": style, "calibration": document}))
    (work.folder / PLOT).write_bytes(draw(style, gates, limits, scores))


def describe(gate: Gate, limit: float, scores: np.ndarray) -> dict[str, Any]:
    """Describe a gate: its limit, the share of the calibration samples that it stops, and their scores."""
    stopped = (scores > limit) if gate.upper else (scores < limit)
    return {
        "gate": gate.name,
        "score": gate.score,
        "limit": limit,
        "stopped": float(stopped.mean()) if scores.size else 0.0,
        "quantiles": {f"{level:.2f}": float(np.quantile(scores, level)) for level in LEVELS if scores.size},
    }


def draw(style: str, gates: Sequence[Gate], limits: dict[str, float], scores: dict[str, np.ndarray]) -> bytes:
    """Draw a PNG with a histogram for each gate; stopped samples have another colour."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, -(-len(gates) // COLUMNS))
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{style}: gates set by its own scores")
    for number, gate in enumerate(gates, start=1):
        draw_gate(figure.add_subplot(rows, COLUMNS, number), gate, limits[gate.name], scores[gate.name])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})  # the same bytes from the same scores
    return buffer.getvalue()


def draw_gate(axes: Axes, gate: Gate, limit: float, scores: np.ndarray) -> None:
    """Draw a histogram: the kept side blue, the stopped side red, the limit as a line."""
    stopped = (scores > limit) if gate.upper else (scores < limit)
    edges = np.histogram_bin_edges(np.append(scores, limit), BINS)
    axes.hist([scores[~stopped], scores[stopped]], edges.tolist(), stacked=True, color=["tab:blue", "tab:red"])
    axes.axvline(limit, color="black", linewidth=1)
    axes.set_title(f"{gate.name} = {limit:.3f}, stops {int(stopped.sum())} of {scores.size}", fontsize=9)
