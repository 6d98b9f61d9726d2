"""Differences between two datasets: samples, scores by style, settings, and other causes.

A is the earlier dataset, B the present one. Columns are compared whole, so that a million samples take seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import MANIFEST, SAMPLES, Snapshot, snapshot_digest
from data_catalog.products.students import open_dataset
from tasks.datasets.origins import compare_partitions, compare_settings, find_causes, recipe

# What a change of a column means to a reader; of other columns, their own name.
MEANINGS = {
    "pseudo_label_digest": "pseudo-label",
    "prompt": "prompt",
    "split": "split",
    "camera": "camera",
    "camera_source": "camera",
    "true_camera": "camera",
    "score_teacher_lpips": "teacher",  # these two are measured on what the teacher made
    "score_view_identity": "teacher",
}
# Columns of a sample's place, and of its portrait. A moved sample is the same sample.
NOT_COMPARED = ("key", "shard", "block", "rank", "person")

Row = dict[str, Any]


@dataclass(frozen=True)
class SampleDiff:
    """Rows of two datasets, sorted out by key."""

    added: pa.Table  # rows of B whose key is not in A
    removed: pa.Table  # rows of A whose key is not in B
    before: pa.Table  # of the samples in both: their rows in A,
    after: pa.Table  # and in B, in the same order
    changes: dict[str, np.ndarray]  # by what changed: (samples in both,) bool

    @property
    def changed(self) -> np.ndarray:
        """Places in `before` and `after` of the samples that changed, (n,) int."""
        return np.flatnonzero(np.any([np.zeros(len(self.before), bool), *self.changes.values()], axis=0))

    def what_changed(self, place: int) -> list[str]:
        """In words, for one place in `before` and `after`."""
        return [name for name, differs in self.changes.items() if differs[place]]


def find_dataset(root: Path, name: str) -> Snapshot:
    """Find a dataset by name, digest or its beginning, as `latest`, or as the folder that holds it."""
    folder = Path(name).expanduser()
    if (folder / SAMPLES).is_file() and (folder / MANIFEST).is_file():
        return Snapshot(snapshot_digest(folder), folder.absolute())
    if "/" in name or folder.is_dir():
        raise UserError(
            f"there is no dataset in {name}",
            expected=f"a folder with {SAMPLES} and {MANIFEST}",
            hint="a folder of datasets/, a digest or its beginning, a student's name, or latest",
        )
    return open_dataset(root, name)


def pair_samples(a: Snapshot, b: Snapshot) -> SampleDiff:
    """Match the samples of two datasets by key and compare the columns that both have."""
    then, now = _read(a), _read(b)
    places = pc.index_in(now["key"], value_set=then["key"].combine_chunks())
    both = pc.is_valid(places)
    before, after = then.take(pc.drop_null(places)), now.filter(both)
    unchanged = np.zeros(len(before), bool)
    changes = dict.fromkeys(MEANINGS.values(), unchanged)
    for name in then.column_names:
        if name in NOT_COMPARED or name not in now.column_names:
            continue
        meaning = MEANINGS.get(name, "scores" if name.startswith("score_") else name)
        changes[meaning] = changes.get(meaning, unchanged) | differ(before[name], after[name])
    return SampleDiff(
        added=now.filter(pc.invert(both)),
        removed=then.filter(pc.invert(pc.is_in(then["key"], value_set=now["key"].combine_chunks()))),
        before=before,
        after=after,
        changes={name: differs for name, differs in changes.items() if differs.any()},
    )


def _read(dataset: Snapshot) -> pa.Table:
    table = dataset.samples()
    missing = [name for name in ("key", "style") if name not in table.column_names]
    if missing:
        raise UserError(f"{dataset.folder / SAMPLES} is not a table of samples", missing=", ".join(missing))
    return table.sort_by("key")


def differ(then: pa.ChunkedArray, now: pa.ChunkedArray) -> np.ndarray:
    """(n,) bool: where two columns of n values disagree. Null and nan are one value: not known."""
    if then.type != now.type:
        return np.ones(len(then), bool)
    if pa.types.is_list(then.type) or pa.types.is_fixed_size_list(then.type):
        return _lists_differ(then, now)
    unknown = [np.asarray(pc.is_null(column, nan_is_null=True)) for column in (then, now)]
    unequal = np.asarray(pc.fill_null(pc.not_equal(then, now), False))
    differs: np.ndarray = np.where(unknown[0] | unknown[1], unknown[0] != unknown[1], unequal)
    return differs


def _lists_differ(then: pa.ChunkedArray, now: pa.ChunkedArray) -> np.ndarray:
    lengths = [np.asarray(pc.fill_null(pc.list_value_length(column), -1)) for column in (then, now)]
    differs: np.ndarray = lengths[0] != lengths[1]
    comparable = np.flatnonzero(~differs & (lengths[0] > 0))
    if comparable.size:
        values = differ(*(pc.list_flatten(column.take(comparable)) for column in (then, now)))
        ends = np.cumsum(lengths[0][comparable])
        differs[comparable] = np.logical_or.reduceat(values, np.concatenate([[0], ends[:-1]]))
    return differs


def describe_diff(a: Snapshot, b: Snapshot, samples: SampleDiff) -> Row:
    """The whole difference as a document; the lists of keys are complete."""
    old, new = a.manifest, b.manifest
    changed = samples.changed
    keys = samples.before["key"]
    return {
        "a": _name(a, samples.before, samples.removed),
        "b": _name(b, samples.after, samples.added),
        "samples": {
            "added": len(samples.added),
            "removed": len(samples.removed),
            "changed": len(changed),
            "unchanged": len(samples.before) - len(changed),
        },
        "changes": {name: int(where.sum()) for name, where in samples.changes.items()},
        "styles": compare_styles(samples, old, new),
        "settings": compare_settings(recipe(old), recipe(new)),
        "causes": find_causes(a, b),
        "partitions": compare_partitions(old.get("partitions", {}), new.get("partitions", {})),
        "added": samples.added["key"].to_pylist(),
        "removed": samples.removed["key"].to_pylist(),
        "changed": [{"key": keys[int(i)].as_py(), "what": samples.what_changed(int(i))} for i in changed],
    }


def _name(dataset: Snapshot, shared: pa.Table, own: pa.Table) -> Row:
    return {"digest": dataset.digest, "folder": str(dataset.folder), "samples": len(shared) + len(own)}


def compare_styles(samples: SampleDiff, then: Row, now: Row) -> list[Row]:
    """For each style of either dataset: its counts, its yield and how each score's mean moved."""
    tables = {"a": _join(samples.before, samples.removed), "b": _join(samples.after, samples.added)}
    means = {side: _score_means(table) for side, table in tables.items()}
    paired = _paired_shifts(samples)
    counts = {side: Counter(table["style"].to_pylist()) for side, table in tables.items()}
    added, removed = (Counter(table["style"].to_pylist()) for table in (samples.added, samples.removed))
    changed = Counter(samples.before["style"].take(samples.changed).to_pylist())
    return [
        {
            "style": style,
            "samples": {side: counts[side][style] for side in tables},
            "added": added[style],
            "removed": removed[style],
            "changed": changed[style],
            "yield": {"a": _yield(then, style), "b": _yield(now, style)},
            "scores": _shifts(means["a"].get(style, {}), means["b"].get(style, {}), paired.get(style, {})),
        }
        for style in sorted(counts["a"] | counts["b"])
    ]


def _score_names(table: pa.Table) -> list[str]:
    fields = {name: table.schema.field(name) for name in table.column_names if name.startswith("score_")}
    return [name for name, field in fields.items() if pa.types.is_floating(field.type)]


def _join(shared: pa.Table, own: pa.Table) -> pa.Table:
    columns = ["style", *_score_names(shared)]
    return pa.concat_tables([shared.select(columns), own.select(columns)])


def _score_means(table: pa.Table) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    """(mean, standard deviation) of each score, by style and score."""
    scores = _score_names(table)
    rows = table.group_by("style").aggregate([(n, how) for n in scores for how in ("mean", "stddev")]).to_pylist()
    return {row["style"]: {name: (row[f"{name}_mean"], row[f"{name}_stddev"]) for name in scores} for row in rows}


def _paired_shifts(samples: SampleDiff) -> dict[str, dict[str, float | None]]:
    """By style and score, the mean of B - A over the samples in both."""
    scores = [name for name in _score_names(samples.before) if name in samples.after.column_names]
    columns = {name: pc.subtract(samples.after[name], samples.before[name]) for name in scores}
    rows = pa.table({"style": samples.after["style"], **columns}).group_by("style")
    means = rows.aggregate([(name, "mean") for name in scores]).to_pylist()
    return {row["style"]: {name: row[f"{name}_mean"] for name in scores} for row in means}


def _shifts(then: dict[str, Any], now: dict[str, Any], paired: dict[str, float | None]) -> Row:
    """Compare the means of each score.

    `shift` is mean B - mean A over all samples, which includes added and removed ones. `paired` is
    the mean of B - A over the samples in both. `effect` is `shift` in units of the samples' spread (Cohen's d).
    """
    found: Row = {}
    for name in [*then, *(name for name in now if name not in then)]:
        (a, spread_a), (b, spread_b) = then.get(name, (None, None)), now.get(name, (None, None))
        if a is None and b is None:
            continue
        shift = None if a is None or b is None else b - a
        spread = float(np.sqrt(((spread_a or 0.0) ** 2 + (spread_b or 0.0) ** 2) / 2))
        effect = None if shift is None or not spread else shift / spread
        found[name] = {"a": a, "b": b, "shift": shift, "paired": paired.get(name), "effect": effect}
    return found


def _yield(manifest: Row, style: str) -> float | None:
    share: float | None = manifest.get("funnels", {}).get(style, {}).get("yield")
    return share
