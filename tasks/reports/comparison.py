"""Comparison of two datasets as a page with pictures that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import Snapshot
from data_catalog.samples.encoding import decode_rgb
from data_catalog.samples.shards import read_sample
from tasks.datasets.browse import read_kept_index
from tasks.datasets.diff import SampleDiff
from tasks.datasets.origins import root_of
from tasks.pictures.inline import embed_picture, make_strip
from tasks.templates import render

CHANGED_PER_STYLE, ALONE_PER_STYLE = 6, 6
PICTURES = ("portrait.png", "pseudo_label.png")
SMALL_EFFECT = 0.2  # Cohen's d; the page marks larger shifts

Row = dict[str, Any]


def dataset_page(a: Snapshot, b: Snapshot, samples: SampleDiff, diff: Row) -> bytes:
    """The page of `describe_diff`."""
    pictures = show_samples(a, b, samples, diff)
    return render("dataset_diff.html.j2", diff=diff, pictures=pictures, small_effect=SMALL_EFFECT).encode()


def show_samples(a: Snapshot, b: Snapshot, samples: SampleDiff, diff: Row) -> list[Row]:
    """For each style with differences: strips of changed, added and removed samples."""
    roots = root_of(a), root_of(b)
    shown = []
    for style in (row["style"] for row in diff["styles"]):
        changed = choose_changed(samples, style)
        strips = {
            "changed": [show_changed(samples, place, roots) for place in changed],
            "added": [show_alone(row, roots[1]) for row in _first(samples.added, style)],
            "removed": [show_alone(row, roots[0]) for row in _first(samples.removed, style)],
        }
        if any(strips.values()):
            shown.append({"style": style, **strips})
    return shown


def choose_changed(samples: SampleDiff, style: str) -> list[int]:
    """Choose changed samples of a style to show: those with another pseudo-label, the largest changes first."""
    styles = samples.before["style"]
    mine = [int(place) for place in samples.changed if styles[int(place)].as_py() == style]
    repainted = samples.changes.get("pseudo-label")
    distance = moved_scores(samples)
    mine.sort(key=lambda place: (repainted is None or not repainted[place], -distance[place], place))
    return mine[:CHANGED_PER_STYLE]


def moved_scores(samples: SampleDiff) -> np.ndarray:
    """(samples in both,) how far each one's scores moved, in units of each score's spread, summed."""
    total: np.ndarray = np.zeros(len(samples.before))
    for name in samples.before.column_names:
        column = samples.before.schema.field(name)
        if name.startswith("score_") and pa.types.is_floating(column.type) and name in samples.after.column_names:
            then, now = (np.asarray(table[name], dtype=np.float64) for table in (samples.before, samples.after))
            spread = np.nanstd(then) if np.isfinite(then).any() else 0.0
            total += np.nan_to_num(np.abs(now - then)) / (spread or 1.0)
    return total


def show_changed(samples: SampleDiff, place: int, roots: tuple[Path | None, Path | None]) -> Row:
    """Portrait, pseudo-label A, pseudo-label B; and the scores that moved."""
    then, now = (table.slice(place, 1).to_pylist()[0] for table in (samples.before, samples.after))
    found = [read_pictures(row, root) for row, root in zip((then, now), roots, strict=True)]
    known = [pictures for pictures in found if pictures]
    cells = [known[-1][0], *(pseudo_label for _, pseudo_label in known)] if known else []
    scores = [
        {"name": name, "a": then[name], "b": now.get(name)}
        for name in ("score_clip_direction", "score_identity", "score_lpips")
        if then.get(name) != now.get(name)
    ]
    prompts = list(dict.fromkeys(row.get("prompt", "") for row in (then, now)))
    own = {"key": then["key"], "split": now.get("split"), "what": samples.what_changed(place), "prompts": prompts}
    return own | {"scores": scores, "strip": _strip(cells), "missing": _missing(found)}


def show_alone(row: Row, root: Path | None) -> Row:
    """Portrait and pseudo-label of a sample that is in one dataset only."""
    pictures = read_pictures(row, root)
    return {"key": row["key"], "prompt": row.get("prompt", ""), "strip": _strip(pictures or [])}


def read_pictures(row: Row, root: Path | None) -> list[np.ndarray] | None:
    """Portrait and pseudo-label, each (H, W, 3) uint8, from the sample's shard; None where that is gone."""
    if root is None or not row.get("shard"):
        return None
    shard = root / row["shard"]
    try:
        content = read_sample(shard, read_kept_index(shard)[row["key"]], PICTURES)
    except (OSError, KeyError, UserError):
        return None
    return [decode_rgb(content[name]) for name in PICTURES]


def _first(table: pa.Table, style: str) -> list[Row]:
    mine = table.filter(pa.compute.equal(table["style"], style))
    rows: list[Row] = mine.slice(0, ALONE_PER_STYLE).to_pylist()
    return rows


def _strip(cells: Sequence[np.ndarray]) -> str | None:
    return embed_picture(make_strip(cells)) if cells else None


def _missing(found: Sequence[object | None]) -> list[str]:
    return [side for side, pictures in zip("AB", found, strict=True) if pictures is None]
