"""Page of the ablations: Tables 2 and 3 as measured, and the paper's trends that they show."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.config.settings import Settings
from tasks.adaptation import adapt
from tasks.lab.ablation import USUAL_PAIRS, Arm
from tasks.templates import render

PAGE, PICTURE, LOOKS_PICTURE = "ablations.md", "ablations.png", "ablations-looks.png"

Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """Result of an arm. `curve` has rows of seconds and lpips, the first before adapting."""

    arm: Arm
    curve: list[dict[str, float]]
    metrics: dict[str, float]
    held_out: int  # pairs
    folder: Path
    settings: Settings


def write_page(
    folder: Path, command: str, style: str, bases: Sequence[Sequence[str]], base: Settings, results: Sequence[Result]
) -> Row:
    """Write the page and its picture into the folder. Returns the tables.

    base: the settings that the bases were trained with.
    """
    largest, looks = len(bases[-1]), _looks(results[0].settings)
    by_styles = table(results, looks, lambda arm: arm.styles, lambda arm: arm.pairs == USUAL_PAIRS)
    by_pairs = table(results, looks, lambda arm: arm.pairs, lambda arm: arm.styles == largest)
    sentences = [
        judge(by_styles, "styles in the base", looks[-1], by_seed(results, looks, "styles", largest)),
        judge(by_pairs, "pairs", looks[-1], by_seed(results, looks, "pairs", largest)),
    ]
    usual = [result for result in results if result.arm == Arm(largest, USUAL_PAIRS, results[0].arm.seed)]
    for name, target in ((adapt.PICTURE, PICTURE), (adapt.LOOKS, LOOKS_PICTURE)):
        shutil.copyfile(usual[0].folder / name, folder / target)
    tables = {"styles": by_styles, "pairs": by_pairs, "trends": sentences}
    facts = {"command": command, "style": style, "bases": bases, "base": base, "settings": results[0].settings}
    text = render(
        "ablations.md.j2",
        **tables,
        **facts,
        looks=looks,
        usual=USUAL_PAIRS,
        held_out=results[0].held_out,
        picture=PICTURE,
        looks_picture=LOOKS_PICTURE,
    )
    (folder / PAGE).write_text(text, encoding="utf-8")
    return {"style": style, "bases": [list(each) for each in bases], **tables}


def _looks(settings: Settings) -> list[float]:
    own = settings.adapt
    return [*sorted(second for second in own.looks_s if second < own.seconds), own.seconds]


def table(
    results: Sequence[Result], looks: Sequence[float], row_of: Callable[[Arm], int], wanted: Callable[[Arm], bool]
) -> list[Row]:
    """A row for each value: mean and standard deviation over the seeds of LPIPS at each look, 0 being before."""
    groups: dict[int, list[Result]] = {}
    for result in results:
        if wanted(result.arm):
            groups.setdefault(row_of(result.arm), []).append(result)
    rows = []
    for value, group in sorted(groups.items()):
        row: Row = {"value": value, "seeds": len(group)}
        for place, second in enumerate([0.0, *looks]):
            seen = [result.curve[place]["lpips"] for result in group]
            row[f"{second:g} s"] = float(np.mean(seen))
            row[f"{second:g} s sd"] = float(np.std(seen, ddof=1)) if len(seen) > 1 else None
        row["gain"] = float(np.mean([result.metrics["gain"] for result in group]))
        row["old_loss"] = float(np.mean([result.metrics["old_loss"] for result in group]))
        row["steps"] = float(np.mean([result.metrics["iterations"] for result in group]))
        rows.append(row)
    return rows


def by_seed(results: Sequence[Result], looks: Sequence[float], what: str, largest: int) -> list[list[float]]:
    """LPIPS at the last look, a list for each seed, in order of the rows."""
    lines: dict[int, dict[int, float]] = {}
    for result in results:
        arm = result.arm
        if (what == "styles" and arm.pairs == USUAL_PAIRS) or (what == "pairs" and arm.styles == largest):
            lines.setdefault(arm.seed, {})[getattr(arm, what)] = result.curve[len(looks)]["lpips"]
    return [[value for _, value in sorted(line.items())] for line in lines.values()]


def judge(rows: Sequence[Row], name: str, last: float, seeds: Sequence[Sequence[float]]) -> str:
    """Whether more is better, as in the paper, in a sentence with its numbers."""
    column = f"{last:g} s"
    first, end = rows[0], rows[-1]
    means = [row[column] for row in rows]
    falls = all(after <= before for before, after in itertools.pairwise(means))
    agreed = sum(line[-1] < line[0] for line in seeds)
    few, many = first["value"], end["value"]
    numbers = f"LPIPS after {last:g} s goes from {first[column]:.3f} with {few} to {end[column]:.3f} with {many} {name}"
    numbers += f"; {many} are better than {few} in {agreed} of {len(seeds)} seeds"
    if len(seeds) < 2:
        return f"Not judged, from one seed: {numbers}."
    if agreed == len(seeds) and falls:
        return f"Reproduced: the more {name}, the better. {numbers}, and every step between helps in the mean."
    if agreed == len(seeds):
        return f"Reproduced from end to end, not at every step between: {numbers}."
    if agreed == 0:
        return f"Not reproduced, the other way round: {numbers}."
    return f"Not reproduced: {numbers}."
