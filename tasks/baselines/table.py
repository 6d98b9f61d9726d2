"""Table 1: means and intervals of every method, by kind of prompt, and whether ours is ahead as the paper says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_catalog.config.settings import Settings
from tasks.baselines.measuring import IMAGE, ROWS, TEXT, means_of
from tasks.baselines.methods import METHODS, OURS
from tasks.evaluation.metrics import bootstrap_intervals, differences

COLUMNS = {"id": "ID_t", "clip": "CLIP_r", "three_d": "3D"}  # judged: higher is better
# Seconds an edit that the paper gives, on one A6000.
PAPER_SECONDS = {"SPI + StyleGAN-NADA": 1080.0, "IP2P + Live3D": 10.0, OURS: 0.04}

Row = dict[str, Any]


def read_rows(folders: Sequence[Path]) -> list[Row]:
    """The rows of partitions."""
    return [row for folder in folders for row in pq.read_table(folder / ROWS).to_pylist()]


def make_table(rows: Sequence[Row], rejected: Mapping[str, int], settings: Settings) -> Row:
    """The document of the table.  rejected: edits by method that came to nothing."""
    made = [m for m in METHODS if rejected.get(m.name) or any(row["method"] == m.name for row in rows)]
    by_method = {m.title: [row for row in rows if row["method"] == m.name] for m in made}
    edited = {title: mine for title, mine in by_method.items() if mine}  # some may have rejected edits only
    table = []
    for method in made:
        mine = by_method[method.title]
        told = {"method": method.title, "steered": method.steered, **means_of(mine)}
        table.append(told | {"edits": len(mine), "rejected": rejected.get(method.name, 0)})
    return {
        "table": table,
        "by_prompt": {
            kind: [
                {"method": title, **means_of([row for row in mine if row["kind"] == kind])}
                for title, mine in by_method.items()
            ]
            for kind in (TEXT, IMAGE)
        },
        "intervals": {title: intervals_of(mine, settings) for title, mine in by_method.items()},
        "order": judge_order(edited, settings) if OURS in edited else [],
        "portraits": len({row["portrait_id"] for row in rows}),
        "styles": sorted({row["style"] for row in rows}),
    }


def judge_order(by_method: Mapping[str, Sequence[Row]], settings: Settings) -> list[Row]:
    """Compare ours with each other method, edit by edit, column by column.

    The paper has ours first in every column. Ours is ahead where the whole 95 % interval over portraits says so, behind
    where it says the opposite, else it is undecided. Methods that optimise CLIP are not judged by it, as in the paper.
    """
    found = []
    steered = {method.title for method in METHODS if method.steered}
    ours = _keyed(by_method[OURS])
    for name, title in COLUMNS.items():
        compared = {}
        for method, rows in by_method.items():
            if method == OURS or (name == "clip" and method in steered):
                continue
            theirs = {row["key"]: row for row in _keyed(rows)}
            shared = [row for row in ours if row["key"] in theirs]
            interval = intervals_of(differences(shared, list(theirs.values())), settings).get(name)
            compared[method] = {"interval": interval, "verdict": _verdict(interval)}
        found.append({"column": title, "compared": compared, "verdict": conclude([*compared.values()])})
    seconds = {method: float(np.mean([row["seconds_per_image"] for row in rows])) for method, rows in by_method.items()}
    faster = {
        method: {"times": value / seconds[OURS], "verdict": "ahead" if value > seconds[OURS] else "behind"}
        for method, value in seconds.items()
        if method != OURS
    }
    return [*found, {"column": "seconds", "compared": faster, "verdict": conclude([*faster.values()])}]


def intervals_of(rows: Sequence[Row], settings: Settings) -> Mapping[str, Sequence[float] | None]:
    """95 % intervals over portraits, by measure. A single portrait has none: it says nothing of others."""
    few = len({row["portrait_id"] for row in rows}) < 2
    return {} if few else bootstrap_intervals(rows, settings.evaluate.bootstrap, settings.evaluate.seed)


def conclude(compared: Sequence[Row]) -> str:
    """The verdict on a column: the paper's order where ours is ahead of all, opposite where it is behind one."""
    verdicts = {each["verdict"] for each in compared}
    if not verdicts:
        return "not measured"
    if "behind" in verdicts:
        return "opposite"
    return "as in the paper" if verdicts == {"ahead"} else "undecided"


def _verdict(interval: Sequence[float] | None) -> str:
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "undecided"
    return "ahead" if interval[0] > 0 else "behind"


def _keyed(rows: Sequence[Row]) -> list[Row]:
    """Rows whose key tells the two prompts of a sample apart."""
    return [row | {"key": f"{row['key']}-{row['kind']}"} for row in rows]
