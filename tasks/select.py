"""Stage select: gates over the scores of a style, the yield funnel, and the choice of image prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.encoding import encode_json
from data_catalog.errors import UserError
from data_catalog.fingerprint import digest_json
from data_catalog.settings import SelectSettings, Settings
from data_catalog.stage import Need, Partition, Stage, Summary, Work
from data_catalog.styles import style_gates

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("block", pa.int32()),
        ("split", pa.string()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # the first gate that stopped the sample
        ("rank", pa.int32()),  # among the kept of its split, by CLIP direction, 0 the best; null if not kept
    ]
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """A limit on one score. `step` is the funnel's step that it belongs to."""

    name: str  # of the setting: min_... or max_...
    score: str
    step: str

    @property
    def upper(self) -> bool:
        return self.name.startswith("max_")

    def stops(self, row: Row, limit: float) -> bool:
        """Whether a sample fails. An unknown score (no face to take a camera from) is no failure."""
        value = row[self.score]
        if value is None:
            return False
        return bool(value > limit) if self.upper else bool(value < limit)


GATES = (
    Gate("min_clip_image", "score_clip_image", "clip"),
    Gate("min_clip_text", "score_clip_text", "clip"),
    Gate("min_clip_direction", "score_clip_direction", "clip"),
    Gate("max_ssim", "score_ssim", "change"),
    Gate("max_lpips", "score_lpips", "change"),
    Gate("min_identity", "score_identity", "identity"),
    Gate("max_camera_drift_deg", "score_camera_drift_deg", "camera"),
)
CHECKS: tuple[tuple[str, str, Callable[[Row], bool]], ...] = (
    ("decodes", "no picture", lambda row: not row["decodes"]),
    ("not constant", "constant frame", lambda row: bool(row["score_constant"])),
    ("safe", "unsafe", lambda row: bool(row["score_unsafe"])),
)
STEPS = ("clip", "change", "identity", "camera")


def run(work: Work) -> Summary:
    """Judge all blocks of one style."""
    style = work.partition.style
    assert style is not None
    settings = style_gates(work.settings, style)
    rows: list[Row] = []
    for scored in work.inputs["score"]:
        table = pq.read_table(scored.folder / "score.parquet").to_pylist()
        rows += [row | {"block": scored.partition.block} for row in table]
    limits = gate_limits(rows, settings)
    judged = judge(rows, limits)
    funnel = count_funnel(judged)
    check_yield(style, funnel, settings)
    prompts = pick_image_prompts(judged, settings.image_prompts)
    write_selection(work.folder, style, judged, {"funnel": funnel, "gates": limits, "image_prompts": prompts})
    kept = [row for row in judged if row["kept"]]
    return Summary(
        samples=len(kept),
        # What has no picture was counted where it was lost.
        rejected=dict(Counter(row["reason"] for row in judged if not row["kept"] and row["decodes"])),
        metrics={"yield": funnel["yield"]},
        parts=block_digests(judged),
    )


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    # A gate in a style's file is a setting of this stage alone, and of this style: no image is edited again for it.
    own = style_gates(settings, partition.style or "")
    return own.model_dump(exclude={"quantile"} if own.calibration == "none" else set())


STAGE = Stage(name="select", version=1, split_by=("style",), needs=(Need("score"),), reads=reads, run=run)


def gate_limits(rows: list[Row], settings: SelectSettings) -> dict[str, float]:
    """The limit of each closed gate, by its setting's name.

    With quantile calibration a style sets its own: the quantile of what its train and val samples score,
    whatever the setting's number, since a good zombie resembles the portrait less than a good redhead does.
    """
    limits: dict[str, float] = {}
    pool = [row for row in rows if row["split"] != "test" and row["decodes"] and not row["score_constant"]]
    for gate in GATES:
        limit = getattr(settings, gate.name)
        if limit is None:
            continue
        scores = [row[gate.score] for row in pool if row[gate.score] is not None]
        if settings.calibration == "quantile" and scores:
            share = 1 - settings.quantile if gate.upper else settings.quantile
            limit = float(np.quantile(scores, share))
        limits[gate.name] = limit
    return limits


def judge(rows: list[Row], limits: dict[str, float]) -> list[Row]:
    """Rows with `kept`, `reason`, `step` (where the sample stopped, or "kept") and `rank`, sorted by key.

    Test samples pass every gate, so that thresholds cannot make the evaluation easier; only one without a
    picture is lost.
    """
    judged = [row | dict(zip(("step", "reason"), _verdict(row, limits), strict=True)) for row in rows]
    for row in judged:
        row["kept"], row["rank"] = row["step"] == "kept", None
    for split in {row["split"] for row in judged}:
        kept = [row for row in judged if row["split"] == split and row["kept"]]
        for rank, row in enumerate(sorted(kept, key=lambda row: (-row["score_clip_direction"], row["key"]))):
            row["rank"] = rank
    return sorted(judged, key=lambda row: row["key"])


def _verdict(row: Row, limits: dict[str, float]) -> tuple[str, str]:
    for step, reason, fails in CHECKS:
        if fails(row):
            return (step, reason) if row["split"] != "test" or not row["decodes"] else ("kept", "")
    if row["split"] == "test":
        return "kept", ""
    for step in STEPS:
        for gate in GATES:
            if gate.step == step and gate.name in limits and gate.stops(row, limits[gate.name]):
                return step, gate.name
    return "kept", ""


def count_funnel(judged: list[Row]) -> dict[str, Any]:
    """How many train and val samples are left after each step; the test samples are counted beside it.

    `scores` are the medians of the gated scores, for a reader who wonders why a gate took so many.
    """
    pool = [row for row in judged if row["split"] != "test"]
    names = [step for step, _, _ in CHECKS] + list(STEPS)
    lost = Counter(row["step"] for row in pool)
    left, steps = len(pool), [{"step": "made", "left": len(pool)}]
    for name in names:
        left -= lost[name]
        steps.append({"step": name, "left": left})
    steps.append({"step": "kept", "left": left})
    medians = {
        gate.score: float(np.median([row[gate.score] for row in pool if row[gate.score] is not None]))
        for gate in GATES
        if any(row[gate.score] is not None for row in pool)
    }
    return {
        "steps": steps,
        "reasons": dict(sorted(Counter(row["reason"] for row in pool if row["reason"]).items())),
        "yield": left / len(pool) if pool else 1.0,
        "test": sum(row["kept"] for row in judged if row["split"] == "test"),
        "medians": medians,
    }


def check_yield(style: str, funnel: dict[str, Any], settings: SelectSettings) -> None:
    """Stop loudly where a style keeps too little to learn from."""
    if funnel["yield"] >= settings.min_yield:
        return
    medians = ", ".join(f"{name.removeprefix('score_')} {value:.3f}" for name, value in funnel["medians"].items())
    raise UserError(
        f"style {style} keeps {funnel['yield']:.0%} of its samples, less than select.min_yield",
        funnel=" -> ".join(f"{step['step']} {step['left']}" for step in funnel["steps"]),
        reasons=", ".join(f"{reason} {count}" for reason, count in funnel["reasons"].items()) or "none",
        medians=medians or "none",
        expected=f"at least {settings.min_yield:.0%}",
        hint="loosen the gate that took most (--set select.<gate>=null opens it), or mend the style's prompt",
    )


def pick_image_prompts(judged: list[Row], count: int) -> list[str]:
    """Keys of the train samples that show the style best, best first."""
    best = [row for row in judged if row["kept"] and row["split"] == "train"]
    return [row["key"] for row in sorted(best, key=lambda row: row["rank"])[:count]]


def block_digests(judged: list[Row]) -> dict[str, str]:
    """A digest of the kept keys of each block: what the teacher's work on that block depends on."""
    blocks: dict[str, list[str]] = {}
    for row in judged:
        blocks.setdefault(f"{row['block']:04d}", []).extend([row["key"]] if row["kept"] else [])
    return {block: digest_json(keys) for block, keys in sorted(blocks.items())}


def write_selection(folder: Path, style: str, judged: list[Row], documents: dict[str, Any]) -> None:
    """select.parquet and one JSON file a document."""
    pq.write_table(pa.Table.from_pylist(judged, schema=SCHEMA), folder / "select.parquet")
    for name, value in documents.items():
        (folder / f"{name}.json").write_bytes(encode_json({"style": style, name: value}))
