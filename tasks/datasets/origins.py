"""Causes of the differences between two datasets: settings, and files, weights and code by the partitions' records."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_catalog.config.places import data_root
from data_catalog.plan.reasons import Reason, differences
from data_catalog.products.snapshot import SAMPLES, Snapshot
from data_catalog.store.catalog import Catalog
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from tasks.dataset import STAGE

PROVENANCE = ("name", "profile", "world", "licence")  # of the manifest, told among the settings

Row = dict[str, Any]


def recipe(manifest: Row) -> Row:
    """Return the settings in a manifest, with its other entries on the origin."""
    given = {name: manifest[name] for name in PROVENANCE if name in manifest}
    return given | manifest.get("settings", {})


def compare_settings(then: Row, now: Row) -> list[Row]:
    """Settings whose values differ, as the command line takes them; None where there was no such setting."""
    old, new = dict(flatten(then)), dict(flatten(now))
    names = [*old, *(name for name in new if name not in old)]
    return [
        {"setting": name, "a": old.get(name), "b": new.get(name)} for name in names if old.get(name) != new.get(name)
    ]


def compare_partitions(then: dict[str, str], now: dict[str, str]) -> list[Row]:
    """By stage, how many of the partitions that the datasets were joined from hold the same bytes."""
    stages: dict[str, Counter[str]] = {need.stage: Counter() for need in STAGE.needs}
    for key in [*then, *(key for key in now if key not in then)]:
        state = "added" if key not in then else "removed" if key not in now else "changed"
        stages.setdefault(key.partition("/")[0], Counter())["same" if then.get(key) == now.get(key) else state] += 1
    words = ("same", "changed", "added", "removed")
    return [{"stage": stage, **{word: count[word] for word in words}} for stage, count in stages.items() if count]


def find_causes(a: Snapshot, b: Snapshot) -> list[Row]:
    """Find causes other than settings for differing partitions (style file, weights, a stage's version or code).

    Looked up in the records of one partition for each stage and style; of records that are gone nothing is said.
    """
    old, new = a.manifest.get("partitions", {}), b.manifest.get("partitions", {})
    catalogs = [Catalog(Store(root)) if (root := root_of(dataset)) else None for dataset in (a, b)]
    causes: dict[tuple[str, Reason], list[str]] = {}
    seen: set[tuple[str, str | None]] = set()
    for key in sorted(key for key in old.keys() & new.keys() if old[key] != new[key]):
        partition = Partition.parse(key)
        if (partition.stage, partition.style) in seen:
            continue
        seen.add((partition.stage, partition.style))
        for reason in _causes_of(*(_record(c, key, d[key]) for c, d in zip(catalogs, (old, new), strict=True))):
            causes.setdefault((partition.stage, reason), []).append(partition.style or "all")
    return [
        {"stage": stage, "what": reason.what, "a": reason.then, "b": reason.now, "styles": styles}
        for (stage, reason), styles in causes.items()
    ]


def _causes_of(then: Record | None, now: Record | None) -> list[Reason]:
    if then is None or now is None:
        return []
    found = [
        reason
        for reason in differences(then.fingerprint_inputs, now.fingerprint_inputs)
        if not reason.what.startswith(("setting ", "upstream "))
    ]
    if then.source_digest != now.source_digest:
        found.append(Reason("code", then.source_digest[:12], now.source_digest[:12]))
    return found


def _record(catalog: Catalog | None, key: str, digest: str) -> Record | None:
    entries = catalog.history(key) if catalog else []
    return next((catalog.read(entry) for entry in entries if catalog and entry.digest == digest), None)


def root_of(dataset: Snapshot) -> Path | None:
    """Return the data root that holds the dataset's partitions: above its folder, or else the current one."""
    known = "shard" in pq.read_schema(dataset.folder / SAMPLES).names
    shards = dataset.samples(["shard"]).column("shard") if known else []
    first = str(shards[0].as_py()) if len(shards) else "store"
    places = [*dataset.folder.parents, data_root()]
    return next((place for place in places if (place / first).exists()), None)


def flatten(settings: Row, prefix: str = "") -> list[tuple[str, str]]:
    """("edit.steps", "20") for every setting, in order."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            rows += flatten(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", json.dumps(value, ensure_ascii=False)))
    return rows
