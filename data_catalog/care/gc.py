"""Delete folders that nothing refers to: partitions, old snapshots, abandoned attempts.

    waste = find_waste(store, plans, last=3)
    remove_waste(store, waste.items)

Kept are the newest and the pinned snapshots with everything that they were made from and that was learned from them;
students in use with their datasets; partitions that a present plan counts on; and everything made since the newest
snapshot, since it may belong to the next one. A snapshot stays as long as its partition does.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_catalog.care.references import References
from data_catalog.plan.plan import Plan
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.names import read_exports, read_names
from data_catalog.products.snapshot import MANIFEST, Snapshot, list_snapshots, open_snapshot
from data_catalog.products.students import adapted_styles, list_students, open_dataset, recorded_digest
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.stage import Stage
from data_catalog.store.store import FOLDER_CHARS, RECORD, Store, writing

log = logging.getLogger(__name__)

PINNED = "keep"  # a file of this name in a snapshot's folder keeps the snapshot
UNFINISHED = re.compile(r"\.(?P<kind>tmp|part)-(?P<fingerprint>[0-9a-f]+)(-.*)?")


@dataclass(frozen=True)
class Waste:
    """Folder that may be deleted."""

    kind: Literal["partition", "unfinished", "dataset"]
    name: str  # a partition's key, or datasets/<digest>
    folder: Path
    bytes: int
    why: str
    stamp: tuple[int, int] | None = None  # (mtime, size) of the record when it was found


@dataclass
class Findings:
    """Folders that may be deleted, and snapshots that stay."""

    items: list[Waste] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)  # kept, the newest last
    why: dict[str, list[str]] = field(default_factory=dict)  # reasons for each of them, by digest
    partitions: int = 0  # kept records
    bytes: int = 0  # of the kept records


def find_waste(
    store: Store,
    plans: Sequence[Plan],
    last: int,
    keep: Sequence[str] = (),
    uses: Mapping[str, Sequence[str]] | None = None,
) -> Findings:
    """Look at everything below the data root; nothing is written.

    last: number of newest snapshots to keep.  keep: further snapshots, by digest, beginning of a digest or student's
    name.  uses: further reasons to keep students, by digest, as in `student_uses`.
    """
    catalog, snapshots = Catalog(store), list_snapshots(store.root)
    keys = {folder.parent.relative_to(store.folder_of_all).as_posix() for folder, whole in store.folders() if whole}
    references = References(catalog, {key: catalog.history(key) for key in sorted(keys)})
    in_use = student_uses(catalog)
    for digest, words in (uses or {}).items():
        in_use.setdefault(digest, []).extend(words)
    why = _reasons_for_snapshots(store.root, snapshots, last, keep)
    counted_on = [entry for plan in plans for entry in _counted_on(plan)]
    _keep_all(references, store.root, plans, counted_on, [each for each in snapshots if each.digest in why], in_use)
    _add_reasons_of_partitions(references, why, counted_on, in_use)
    kept = [each for each in snapshots if each.digest in why]
    found = Findings(snapshots=kept, why={each.digest: why[each.digest] for each in kept})
    for entry in references.entries:
        if references.is_kept(entry):
            found.partitions, found.bytes = found.partitions + 1, found.bytes + entry.bytes
        else:
            reason = "no kept dataset and no plan refers to it"
            folder = catalog.folder(entry)
            found.items.append(Waste("partition", entry.partition, folder, entry.bytes, reason, entry.stamp))
    found.items += _unfinished(store, plans)
    for snapshot in snapshots:
        if snapshot.digest not in why:
            reason = f"older than the last {last}, and no student in use learned from it"
            name = f"datasets/{snapshot.folder.name}"
            found.items.append(Waste("dataset", name, snapshot.folder, _folder_bytes(snapshot.folder), reason))
    return found


def student_uses(catalog: Catalog) -> dict[str, list[str]]:
    """Return the reasons to keep students in use, by digest; each follows the words "its student"."""
    uses: dict[str, list[str]] = {}
    for newest in list_students(catalog)[:1]:
        uses[newest.digest] = ["is the newest"]
    for name, digest in sorted(read_names(catalog.store.root).items()):
        uses.setdefault(digest, []).append(f"is named {name}")
    for digest, folders in read_exports(catalog.store.root).items():
        uses.setdefault(digest, []).append(f"was exported to {', '.join(folders)}")
    for style, digest in sorted({(each.style, each.base) for each in adapted_styles(catalog)}):
        uses.setdefault(digest, []).append(f"was adapted to {style}")
    return uses


def remove_waste(store: Store, items: Iterable[Waste]) -> list[Waste]:
    """Delete the findings of `find_waste`; returns the deleted ones. Changed or locked folders stay."""
    gone = []
    for item in items:
        with writing(store.root):
            if item.kind == "dataset":
                (item.folder / MANIFEST).unlink(missing_ok=True)  # first: without a manifest the folder is no snapshot
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
        record.unlink(missing_ok=True)  # first: without a record the folder is no partition
        shutil.rmtree(item.folder, ignore_errors=True)
        with suppress(OSError):  # the partition's own folder, when this was the last
            item.folder.parent.rmdir()
    return True


def _stamp(record: Path) -> tuple[int, int] | None:
    try:
        status = record.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size)


def _reasons_for_snapshots(
    root: Path, snapshots: list[Snapshot], last: int, keep: Sequence[str]
) -> dict[str, list[str]]:
    """Return the reasons to keep snapshots: newest, named by `latest`, named by the caller, or pinned."""
    why: dict[str, list[str]] = {}
    for snapshot in snapshots[len(snapshots) - last :] if last > 0 else []:
        why.setdefault(snapshot.digest, []).append("it is the newest" if last == 1 else f"it is one of the last {last}")
    if snapshots and (root / "datasets" / "latest").is_file():
        why.setdefault(open_snapshot(root).digest, []).append("it is datasets/latest")
    for name in keep:
        why.setdefault(open_dataset(root, name).digest, []).append(f"--keep {name}")
    for snapshot in snapshots:
        if (snapshot.folder / PINNED).exists():
            why.setdefault(snapshot.digest, []).append(f"its folder has a file '{PINNED}'")
    return why


def _counted_on(plan: Plan) -> list[Entry]:
    """Return the entries that a plan uses as they are or would resume."""
    fitting = [step.near for step in plan.steps.values() if step.fits]
    return [entry for entry in (*fitting, *plan.passed, *(step.entry for step in plan.steps.values())) if entry]


def _keep_all(
    references: References,
    root: Path,
    plans: Sequence[Plan],
    counted_on: list[Entry],
    snapshots: list[Snapshot],
    in_use: Mapping[str, Sequence[str]],
) -> None:
    """Keep everything needed, its inputs, and everything that was learned from it."""
    references.keep(counted_on)
    references.keep(_recent(root, references.entries))
    for digest in in_use:
        references.keep_named({STUDENT: digest})
    for snapshot in snapshots:
        references.keep_named(snapshot.manifest.get("partitions", {}))
    digests = {snapshot.digest for snapshot in snapshots}
    references.keep(entry for entry, digest in _datasets(references) if digest in digests)
    stages = plans[0].stages if plans else ()
    known = {stage.name for stage in stages}
    references.keep(entry for entry in references.entries if entry.stage not in known)
    references.close()
    references.keep_dependants(_after_dataset(stages))


def _datasets(references: References) -> Iterator[tuple[Entry, str]]:
    """Pairs of a partition that a snapshot may have been published from, and the snapshot's digest."""
    for entry in references.history.get(DATASET, []):
        digest = recorded_digest(references.catalog.read(entry))
        if digest is not None:
            yield entry, digest


def _add_reasons_of_partitions(
    references: References,
    why: dict[str, list[str]],
    counted_on: list[Entry],
    in_use: Mapping[str, Sequence[str]],
) -> None:
    """Add the reasons from kept partitions: a snapshot stays with the partition that it was published from."""
    made_from: dict[str, list[Entry]] = {}
    for entry in references.entries:
        if references.is_kept(entry) and (digest := references.inputs(entry).get(DATASET)):
            made_from.setdefault(digest, []).append(entry)
    for entry, snapshot in _datasets(references):
        if not references.is_kept(entry):
            continue
        made = made_from.get(entry.digest, [])
        students = {each.digest: in_use.get(each.digest, ()) for each in made if each.partition == STUDENT}
        reasons = [f"its student {digest[:16]} {use}" for digest, uses in students.items() for use in uses]
        if not reasons and snapshot not in why:
            counted = any(
                (each.partition, each.fingerprint) == (entry.partition, entry.fingerprint) for each in counted_on
            )
            others = [f"{each.partition} {each.digest[:16]}, which was made from it, stays" for each in made[:1]]
            reasons = ["the plan of a profile counts on it"] if counted else others or ["its partition stays"]
        known = why.setdefault(snapshot, [])
        known += [reason for reason in reasons if reason not in known]


def _recent(root: Path, entries: Iterable[Entry]) -> list[Entry]:
    """Return records younger than the last publication of a snapshot; all of them before the first."""
    latest = root / "datasets" / "latest"
    published_ns = latest.stat().st_mtime_ns if latest.is_file() else 0
    return [entry for entry in entries if entry.record_mtime_ns > published_ns]


def _after_dataset(stages: Iterable[Stage]) -> set[str]:
    """Names of the stages that learn from a dataset, directly or not; `stages` come in order of their needs."""
    after = {DATASET.partition("/")[0]}
    for stage in stages:
        if any(need.stage in after for need in stage.needs):
            after.add(stage.name)
    return after


def _unfinished(store: Store, plans: Sequence[Plan]) -> Iterator[Waste]:
    """Attempts' folders without a live process that no plan would resume."""
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
    """Whether a plan would or might resume this folder. A fingerprint is unknown until its inputs are made."""
    steps = [plan.steps[key] for plan in plans if key in plan.steps]
    waiting = [step for step in steps if not step.made]
    return any(step.fingerprint is None or step.fingerprint[:FOLDER_CHARS] == fingerprint for step in waiting)


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
