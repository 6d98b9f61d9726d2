"""The gates: limits on the scores of a pseudo-label, and the checks that come before them. See `select`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from data_catalog.config.settings import SelectSettings
from tasks.tables.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Candidate(Scores):
    """A sample with its scores, where it is from, and once it is judged, what became of it."""

    portrait_id: str
    block: int
    attempt: int
    place: str  # of the partition that scored it
    step: str = ""  # where it stopped, or "kept"
    rank: int | None = None  # among the kept of its split

    @property
    def kept(self) -> bool:
        return self.step == KEPT


@dataclass(frozen=True)
class Gate:
    """A limit on one score. `step` is the funnel's step that it belongs to."""

    name: str  # of the setting: min_... or max_...
    score: str
    step: str

    @property
    def upper(self) -> bool:
        return self.name.startswith("max_")

    def value(self, row: Scores) -> float | None:
        """Return the score that the gate limits."""
        value: float | None = getattr(row, self.score)
        return value

    def stops(self, row: Scores, limit: float) -> bool:
        """Whether a sample fails. An unknown score (no face to take a camera from) is no failure."""
        value = self.value(row)
        if value is None:
            return False
        return bool(value > limit) if self.upper else bool(value < limit)


GATES = (
    Gate("min_clip_image", "score_clip_image", "clip"),
    Gate("min_clip_text", "score_clip_text", "clip"),
    Gate("min_clip_direction", "score_clip_direction", "clip"),
    Gate("min_ssim", "score_ssim", "change"),
    Gate("max_ssim", "score_ssim", "change"),
    Gate("min_lpips", "score_lpips", "change"),
    Gate("max_lpips", "score_lpips", "change"),
    Gate("min_identity", "score_identity", "identity"),
    Gate("max_camera_drift_deg", "score_camera_drift_deg", "camera"),
)
STEPS = ("clip", "change", "identity", "camera")
CHECKS: tuple[tuple[str, str, Callable[[Scores], bool]], ...] = (
    ("decodes", "no picture", lambda row: not row.decodes),
    ("not constant", "constant frame", lambda row: bool(row.score_constant)),
    ("safe", "unsafe", lambda row: bool(row.score_unsafe)),
)
KEPT = "kept"
FACE, NO_FACE = "face", "no face found"
LEFT_OUT, LOW_YIELD = "yield", "low yield of its style"


@dataclass(frozen=True)
class Limits:
    """Limits for a style: the limit of each closed gate by its setting's name, and whether a face must show."""

    gates: dict[str, float]
    face: bool = False

    @classmethod
    def of(cls, rows: Sequence[Candidate], settings: SelectSettings) -> Limits:
        """Return the limits of one style, calibrated by its rows where the settings say so."""
        return cls(gate_limits(rows, settings), settings.require_face)


def gate_limits(rows: Sequence[Candidate], settings: SelectSettings) -> dict[str, float]:
    """Return the limit of each closed gate, by its setting's name.

    With quantile calibration a style sets its own: the quantile of what its calibration samples score, whatever
    the setting's number, since a good zombie resembles the portrait less than a good redhead does.
    """
    limits: dict[str, float] = {}
    pool = calibration_pool(rows, settings)
    for gate in GATES:
        limit = getattr(settings, gate.name)
        if limit is None:
            continue
        scores = [value for row in pool if (value := gate.value(row)) is not None]
        if settings.calibration == "quantile" and scores:
            share = 1 - settings.quantile if gate.upper else settings.quantile
            limit = float(np.quantile(scores, share))
        limits[gate.name] = limit
    return limits


def calibration_pool(rows: Sequence[Candidate], settings: SelectSettings) -> list[Candidate]:
    """Select the samples that calibrate: pictures of the first blocks at their first attempt, none of the test split.

    More portraits or further attempts leave the limits as they are.
    """
    first = sorted({row.block for row in rows if not row.attempt})[: settings.calibration_blocks]
    return [
        row
        for row in rows
        if row.block in first and not row.attempt and row.split != "test" and row.decodes and not row.score_constant
    ]


def verdict(row: Scores, limits: Limits) -> tuple[str, str]:
    """(step where a sample stops, the reason), or ("kept", "").

    Test samples pass every gate, so that thresholds cannot make the evaluation easier. One without a picture, with an
    unsafe or a constant one is lost like others: it shows nothing that a method could be compared with.
    """
    for step, reason, fails in CHECKS:
        if fails(row):
            return step, reason
    if row.split == "test":
        return KEPT, ""
    if limits.face and row.score_camera_drift_deg is None:
        return FACE, NO_FACE
    for step in STEPS:
        for gate in GATES:
            if gate.step == step and gate.name in limits.gates and gate.stops(row, limits.gates[gate.name]):
                return step, gate.name
    return KEPT, ""
