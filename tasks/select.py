"""Stage select: gates over the scores of a style, and the yield funnel.

A style that keeps too few samples asks for further attempts. Its partition is then judged again with their scores among
its inputs, until it has enough (see `shortfall`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.config.profiles import with_profile
from data_catalog.config.settings import SelectSettings, Settings
from data_catalog.config.styles import read_style, style_gates, style_path
from data_catalog.samples.encoding import encode_json
from data_catalog.samples.keys import key_portrait
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import MORE
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.gating.gates import (
    CHECKS,
    FACE,
    GATES,
    LEFT_OUT,
    LOW_YIELD,
    STEPS,
    Candidate,
    Limits,
    calibration_pool,
    verdict,
)
from tasks.gating.shortfall import Advise, ask_for_more
from tasks.language.encoder import read_notes
from tasks.sources.edits import given_style
from tasks.tables.scores import SCORES
from tasks.tables.selection import SELECTION, Selected

log = logging.getLogger(__name__)


def run(work: Work) -> Summary:
    """Judge all blocks of one style, and list the further attempts that it needs."""
    style = work.partition.style
    assert style is not None
    settings = style_gates(work.settings, style)
    rows = read_scores(work)
    limits = Limits.of(rows, settings)
    judged = judge(rows, limits)
    advise = partial(find_advice, style, settings, work.settings)
    if not check_yield(style, count_funnel(judged), settings, advise):
        judged = leave_out(judged)
    funnel = count_funnel(judged)
    more = ask_for_more(style, judged, settings, advise, repeatable=given_style(work.settings, style) is None)
    if settings.calibration != "none" and not more:
        from tasks.gating.calibration import write_calibration

        write_calibration(work, style, calibration_pool(rows, settings), limits.gates, settings)
    write_selection(work.folder, style, judged, {"funnel": funnel, "gates": limits.gates})
    kept = [row for row in judged if row.kept]
    return Summary(
        samples=len(kept),
        # What has no picture was counted where it was lost.
        rejected=dict(Counter(row.reason for row in judged if not row.kept and row.decodes)),
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


STAGE = Stage(name="select", version=2, split_by=("style",), needs=(Need("score"),), reads=reads, run=run)


def read_scores(work: Work) -> list[Candidate]:
    """The samples of all blocks and attempts of the style."""
    rows: list[Candidate] = []
    for scored in work.inputs["score"]:
        block, attempt, place = scored.partition.block, scored.partition.attempt, scored.partition.place
        assert block is not None
        assert place is not None
        for row in SCORES.read(scored.folder):
            portrait_id = key_portrait(row.key)
            rows.append(Candidate(**vars(row), portrait_id=portrait_id, block=block, attempt=attempt, place=place))
    return rows


def judge(rows: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """The samples with `step`, `reason` and `rank`, sorted by key."""
    judged = {}
    for row in rows:
        step, reason = verdict(row, limits)
        judged[row.key] = replace(row, step=step, reason=reason)
    for split in {row.split for row in rows}:
        kept = [row for row in judged.values() if row.split == split and row.kept]
        for rank, row in enumerate(sorted(kept, key=lambda row: (-(row.score_clip_direction or 0.0), row.key))):
            judged[row.key] = replace(row, rank=rank)
    return [judged[key] for key in sorted(judged)]


def count_funnel(judged: list[Candidate]) -> dict[str, Any]:
    """Count the train and val samples left after each step; the test samples are counted beside it.

    `attempts` holds the samples made by each attempt, the first one first.
    `medians` are the medians of the gated scores, which explain why a gate stopped so many.
    """
    pool = [row for row in judged if row.split != "test"]
    lost = Counter(row.step for row in pool)
    names = [*(step for step, _, _ in CHECKS), FACE, *STEPS, *([LEFT_OUT] if lost[LEFT_OUT] else [])]
    left, steps = len(pool), [{"step": "made", "left": len(pool)}]
    for name in names:
        left -= lost[name]
        steps.append({"step": name, "left": left})
    steps.append({"step": "kept", "left": left})
    known = {gate.score: [value for row in pool if (value := gate.value(row)) is not None] for gate in GATES}
    medians = {score: float(np.median(values)) for score, values in known.items() if values}
    return {
        "steps": steps,
        "reasons": dict(sorted(Counter(row.reason for row in pool if row.reason).items())),
        # Of a style that is left out: as it was before.
        "yield": (left + lost[LEFT_OUT]) / len(pool) if pool else 1.0,
        "test": sum(row.kept for row in judged if row.split == "test"),
        "attempts": [made for _, made in sorted(Counter(row.attempt for row in pool).items())],
        "medians": medians,
    }


def leave_out(judged: list[Candidate]) -> list[Candidate]:
    """The samples of a style that is left out: those that passed the gates are lost, too, also of the test split."""
    return [replace(row, step=LEFT_OUT, reason=LOW_YIELD, rank=None) if row.kept else row for row in judged]


def check_yield(style: str, funnel: dict[str, Any], settings: SelectSettings, advise: Advise) -> bool:
    """Tell whether a style keeps enough to learn from. Raises UserError where `select.on_low_yield` is stop."""
    if funnel["yield"] >= settings.min_yield:
        return True
    if settings.on_low_yield == "leave_out":
        log.warning(
            "style %s keeps %.0f%% of its samples, less than select.min_yield=%s: it is left out of the dataset",
            style,
            100 * funnel["yield"],
            settings.min_yield,
        )
        return False
    medians = ", ".join(f"{name.removeprefix('score_')} {value:.3f}" for name, value in funnel["medians"].items())
    raise UserError(
        f"style {style} keeps {funnel['yield']:.0%} of its samples, less than select.min_yield",
        funnel=" -> ".join(f"{step['step']} {step['left']}" for step in funnel["steps"]),
        reasons=", ".join(f"{reason} {count}" for reason, count in funnel["reasons"].items()) or "none",
        medians=medians or "none",
        expected=f"at least {settings.min_yield:.0%}",
        hint="\n".join(advise(funnel["reasons"], 0, 0)),
    )


def find_advice(
    style: str, settings: SelectSettings, given: Settings, lost: Mapping[str, int], keep: int, attempts: int
) -> list[str]:
    """List hints about a style that keeps too little, the likeliest cause first; the commands can be typed as they are.

    settings: with the gates of the style's file.  given: without them.  lost: samples by the reason of their loss.
    keep, attempts: values of `select` that would be enough; 0 for none.
    """
    again, hints = with_profile("stillroom retry", given.profile), []
    if given_style(given, style) is None:
        path = style_path(given, style)
        unknown = read_notes(given.world)(read_style(path).seed_prompt)
        hints += [f"another prompt in {shown_path(path)}: {'; '.join(unknown)}; then {again}"] if unknown else []
    if keep:
        hints.append(f"{again} --set select.keep={keep}    (takes what there is)")
    if attempts:
        hints.append(f"{again} --set select.attempts={attempts}    (makes more)")
    most = max((gate.name for gate in GATES if lost.get(gate.name)), key=lambda name: lost[name], default=None)
    if most is not None and getattr(settings, most) != getattr(given.select, most):
        hints.append(f"a looser {most}, which took most, in the style's file; then {again}")
    elif most is not None:
        hints.append(f"{again} --set select.{most}=null    (opens the gate that took most)")
    return [*hints, f"{again} --set select.on_low_yield=leave_out    (goes on without styles that keep too little)"]


def block_digests(judged: list[Candidate]) -> dict[str, str]:
    """Return a digest of the kept keys of each block; the teacher's work on the block depends on it."""
    blocks: dict[str, list[str]] = {}
    for row in judged:
        blocks.setdefault(row.place, []).extend([row.key] if row.kept else [])
    return {place: digest_json(keys) for place, keys in sorted(blocks.items())}


def write_selection(folder: Path, style: str, judged: list[Candidate], documents: dict[str, Any]) -> None:
    """select.parquet and one JSON file a document."""
    SELECTION.write(
        folder, [Selected(**{name: getattr(row, name) for name in SELECTION.schema.names}) for row in judged]
    )
    for name, value in documents.items():
        (folder / f"{name}.json").write_bytes(encode_json({"style": style, name: value}))
