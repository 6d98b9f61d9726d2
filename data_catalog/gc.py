"""What nothing refers to any more: partitions, old snapshots, folders of attempts that nobody will finish.

    waste = find_waste(store, plans, last=3)
    remove_waste(store, waste.items)

Kept are the snapshots (the newest, the pinned), all that they were made from, what was learned from them, all that
a present plan counts on, and whatever was made since the newest snapshot: work under way towards the next one.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_catalog.catalog import Catalog, Entry
from data_catalog.plan import Plan
from data_catalog.references import References
from data_catalog.snapshot import MANIFEST, Snapshot, list_snapshots, open_snapshot, snapshot_digest
from data_catalog.stage import Stage
from data_catalog.store import FOLDER_CHARS, RECORD, Store, writing

log = logging.getLogger(__name__)

DATASET = "dataset"  # the stage whose partition is published as a snapshot
PINNED = "keep"  # a file of this name in a snapshot's folder keeps the snapshot
UNFINISHED = re.compile(r"\.(?P<kind>tmp|part)-(?P<fingerprint>[0-9a-f]+)(-.*)?")


@dataclass(frozen=True)
class Waste:
    """One folder that may go."""

    kind: Literal["partition", "unfinished", "dataset"]
    name: str  # a partition's key, or datasets/<digest>
    folder: Path
    bytes: int
    why: str
    stamp: tuple[int, int] | None = None  # of the record, as it was when found


@dataclass
class Findings:
    """What may go, and what stays."""

    items: list[Waste] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)  # kept, the newest last
    partitions: int = 0  # kept records
    bytes: int = 0  # of the kept records


def find_waste(store: Store, plans: Sequence[Plan], last: int, keep: Sequence[str] = ()) -> Findings:
    """Look at everything below the data root; nothing is written.

    last: how many of the newest snapshots are kept.  keep: digests, or their beginnings, of more snapshots.
    """
    snapshots = list_snapshots(store.root)
    kept_snapshots = _kept_snapshots(store.root, snapshots, last, keep)
    catalog, found = Catalog(store), Findings(snapshots=kept_snapshots)
    keys = {folder.parent.relative_to(store.folder_of_all).as_posix() for folder, whole in store.folders() if whole}
    references = References(catalog, {key: catalog.history(key) for key in sorted(keys)})
    for plan in plans:
        fitting = [step.near for step in plan.steps.values() if step.fits]
        counted_on = [*fitting, *plan.passed, *(step.entry for step in plan.steps.values())]
        references.keep(entry for entry in counted_on if entry)
    references.keep(_recent(store.root, references.entries))
    datasets = _dataset_entries(catalog, references, kept_snapshots)
    for snapshot in kept_snapshots:
        references.keep_named(snapshot.manifest.get("partitions", {}))
    references.keep(datasets)
    stages = plans[0].stages if plans else ()
    known = {stage.name for stage in stages}
    references.keep(entry for entry in references.entries if entry.stage not in known)
    references.close()
    references.keep_dependants(_after_dataset(stages))
    for entry in references.entries:
        if references.is_kept(entry):
            found.partitions, found.bytes = found.partitions + 1, found.bytes + entry.bytes
        else:
            reason = "no kept dataset and no plan refers to it"
            folder = catalog.folder(entry)
            found.items.append(Waste("partition", entry.partition, folder, entry.bytes, reason, entry.stamp))
    found.items += _unfinished(store, plans)
    names = {snapshot.folder.name for snapshot in kept_snapshots}
    for snapshot in snapshots:
        if snapshot.folder.name not in names:
            why = f"older than the last {last}"
            name = f"datasets/{snapshot.folder.name}"
            found.items.append(Waste("dataset", name, snapshot.folder, _folder_bytes(snapshot.folder), why))
    return found


def remove_waste(store: Store, items: Iterable[Waste]) -> list[Waste]:
    """Delete what `find_waste` found; returns what went. What changed since, or is being worked on, stays."""
    gone = []
    for item in items:
        with writing(store.root):
            if item.kind == "dataset":
                (item.folder / MANIFEST).unlink(missing_ok=True)  # first: without it the folder is no snapshot
                shutil.rmtree(item.folder, ignore_errors=True)
                gone.append(item)
            elif _remove_below_store(store, item):
                gone.append(item)
    Catalog(store).refresh()
    return gone


def _remove_below_store(store: Store, item: Waste) -> bool:
    match = UNFINISHED.fullmatch(item.folder.name)
    fingerprint = match["fingerprint"] if match else item.folder.name
    with store.lock_if_free(f"{item.name}/{fingerprint}") as held:
        record = item.folder / RECORD
        if not held or _stamp(record) != item.stamp:
            log.info("%s is being worked on; it stays", item.name)
            return False
        record.unlink(missing_ok=True)  # first: without it the folder is no partition
        shutil.rmtree(item.folder, ignore_errors=True)
        with suppress(OSError):  # the folder of all fingerprints, when this was the last
            item.folder.parent.rmdir()
    return True


def _stamp(record: Path) -> tuple[int, int] | None:
    try:
        status = record.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size)


def _kept_snapshots(root: Path, snapshots: list[Snapshot], last: int, keep: Sequence[str]) -> list[Snapshot]:
    """The newest, the one that `latest` names, those named now, and those with a file `keep`."""
    digests = {snapshot.digest for snapshot in snapshots[len(snapshots) - last :] if last > 0}
    digests |= {open_snapshot(root, digest).digest for digest in keep}
    if snapshots and (root / "datasets" / "latest").is_file():
        digests.add(open_snapshot(root).digest)
    return [one for one in snapshots if one.digest in digests or (one.folder / PINNED).exists()]


def _dataset_entries(catalog: Catalog, references: References, snapshots: list[Snapshot]) -> list[Entry]:
    """The partitions that the snapshots were published from."""
    digests = {snapshot.digest for snapshot in snapshots}
    entries = [entry for entry in references.entries if entry.stage == DATASET and not catalog.problems(entry)]
    return [entry for entry in entries if snapshot_digest(catalog.folder(entry)) in digests]


def _recent(root: Path, entries: Iterable[Entry]) -> list[Entry]:
    """Records that are younger than the last publication of a snapshot; all of them before the first."""
    latest = root / "datasets" / "latest"
    published_ns = latest.stat().st_mtime_ns if latest.is_file() else 0
    return [entry for entry in entries if entry.record_mtime_ns > published_ns]


def _after_dataset(stages: Iterable[Stage]) -> set[str]:
    """Names of the stages that learn from a dataset, directly or not; `stages` come in order of their needs."""
    after = {DATASET}
    for stage in stages:
        if any(need.stage in after for need in stage.needs):
            after.add(stage.name)
    return after


def _unfinished(store: Store, plans: Sequence[Plan]) -> Iterator[Waste]:
    """Folders of attempts that no live process works on and no plan would take up again."""
    for current, names, _ in os.walk(store.folder_of_all):
        folder = Path(current)
        for name in sorted(names):
            match = UNFINISHED.fullmatch(name)
            if match is None:
                continue
            key = folder.relative_to(store.folder_of_all).as_posix()
            fingerprint = match["fingerprint"]
            resumable = match["kind"] == "part" and _would_resume(plans, key, fingerprint)
            if resumable or store.is_held(f"{key}/{fingerprint}"):
                continue
            why = "an attempt that ended, and no plan goes on from it"
            yield Waste("unfinished", key, folder / name, _folder_bytes(folder / name), why)
        names[:] = sorted(name for name in names if not name.startswith("."))


def _would_resume(plans: Sequence[Plan], key: str, fingerprint: str) -> bool:
    """Whether a plan goes on from this folder, or may: its fingerprint is not known before its inputs are made."""
    steps = [plan.steps[key] for plan in plans if key in plan.steps]
    waiting = [step for step in steps if not step.made]
    return any(step.fingerprint is None or step.fingerprint[:FOLDER_CHARS] == fingerprint for step in waiting)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
