"""Stage select: gates over the scores of a style, the yield funnel, and the choice of image prompts.

A style that keeps too few samples asks for further attempts. Its partition is then judged again with their scores among
its inputs, until it has enough (see `shortfall`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.config.settings import SelectSettings, Settings
from data_catalog.config.styles import style_gates
from data_catalog.samples.encoding import encode_json
from data_catalog.samples.keys import key_portrait
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import MORE
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.gating.gates import CHECKS, FACE, GATES, STEPS, Limits, calibration_pool, verdict
from tasks.gating.shortfall import ask_for_more
from tasks.sources.edits import given_style

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("block", pa.int32()),
        ("attempt", pa.int32()),
        ("split", pa.string()),
        ("kept", pa.bool_()),
        ("reason", pa.string()),  # the first gate that stopped the sample
        ("rank", pa.int32()),  # among the kept of its split, by CLIP direction, 0 the best; null if not kept
    ]
)

Row = dict[str, Any]


def run(work: Work) -> Summary:
    """Judge all blocks of one style, and list the further attempts that it needs."""
    style = work.partition.style
    assert style is not None
    settings = style_gates(work.settings, style)
    rows = read_scores(work)
    limits = Limits.of(rows, settings)
    judged = judge(rows, limits)
    funnel = count_funnel(judged)
    check_yield(style, funnel, settings)
    more = ask_for_more(style, judged, settings, repeatable=given_style(work.settings, style) is None)
    if settings.calibration != "none" and not more:
        from tasks.gating.calibration import write_calibration

        write_calibration(work, style, calibration_pool(rows, settings), limits.gates, settings)
    prompts = pick_image_prompts(judged, settings.image_prompts)
    write_selection(work.folder, style, judged, {"funnel": funnel, "gates": limits.gates, "image_prompts": prompts})
    kept = [row for row in judged if row["kept"]]
    return Summary(
        samples=len(kept),
        # What has no picture was counted where it was lost.
        rejected=dict(Counter(row["reason"] for row in judged if not row["kept"] and row["decodes"])),
        metrics={"yield": funnel["yield"]},
        parts=block_digests(judged) | ({MORE: " ".join(more)} if more else {}),
    )


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    # A gate in a style's file is a setting of this stage and this style: no image is edited again for it.
    own = style_gates(settings, partition.style or "")
    unused = set() if own.calibration != "none" else {"quantile", "calibration_blocks"}
    chosen = own.model_dump(exclude=unused | (set() if own.keep is not None else {"keep", "attempts"}))
    given = own.keep is not None and given_style(settings, partition.style or "") is not None
    return chosen | ({"repeatable": False} if given else {})


STAGE = Stage(name="select", version=1, split_by=("style",), needs=(Need("score"),), reads=reads, run=run)


def read_scores(work: Work) -> list[Row]:
    """The rows of all blocks and attempts of the style, with where each is from."""
    rows: list[Row] = []
    for scored in work.inputs["score"]:
        block, attempt, place = scored.partition.block, scored.partition.attempt, scored.partition.place
        for row in pq.read_table(scored.folder / "score.parquet").to_pylist():
            own = {"block": block, "attempt": attempt, "place": place, "portrait_id": key_portrait(row["key"])}
            rows.append(row | own)
    return rows


def judge(rows: Sequence[Row], limits: Limits) -> list[Row]:
    """Rows with `kept`, `reason`, `step` (where the sample stopped, or "kept") and `rank`, sorted by key."""
    judged = [row | dict(zip(("step", "reason"), verdict(row, limits), strict=True)) for row in rows]
    for row in judged:
        row["kept"], row["rank"] = row["step"] == "kept", None
    for split in {row["split"] for row in judged}:
        kept = [row for row in judged if row["split"] == split and row["kept"]]
        for rank, row in enumerate(sorted(kept, key=lambda row: (-row["score_clip_direction"], row["key"]))):
            row["rank"] = rank
    return sorted(judged, key=lambda row: row["key"])


def count_funnel(judged: list[Row]) -> dict[str, Any]:
    """Count the train and val samples left after each step; the test samples are counted beside it.

    `attempts` holds the samples made by each attempt, the first one first.
    `medians` are the medians of the gated scores, which explain why a gate stopped so many.
    """
    pool = [row for row in judged if row["split"] != "test"]
    names = [*(step for step, _, _ in CHECKS), FACE, *STEPS]
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
        "attempts": [made for _, made in sorted(Counter(row["attempt"] for row in pool).items())],
        "medians": medians,
    }


def check_yield(style: str, funnel: dict[str, Any], settings: SelectSettings) -> None:
    """Raise UserError where a style keeps too little to learn from."""
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
    """Return a digest of the kept keys of each block; the teacher's work on the block depends on it."""
    blocks: dict[str, list[str]] = {}
    for row in judged:
        blocks.setdefault(row["place"], []).extend([row["key"]] if row["kept"] else [])
    return {place: digest_json(keys) for place, keys in sorted(blocks.items())}


def write_selection(folder: Path, style: str, judged: list[Row], documents: dict[str, Any]) -> None:
    """select.parquet and one JSON file a document."""
    pq.write_table(pa.Table.from_pylist(judged, schema=SCHEMA), folder / "select.parquet")
    for name, value in documents.items():
        (folder / f"{name}.json").write_bytes(encode_json({"style": style, name: value}))
