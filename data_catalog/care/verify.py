"""Hash every file of every record again, and check shards, snapshots and the index.

Damage is noted below the catalog: a plan looks only at names, sizes and times, and must not count a damaged partition
as made. A note is void once the partition has another record.
"""

from __future__ import annotations

import json
import logging
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import MANIFEST, SAMPLES, snapshot_digest
from data_catalog.samples.keys import KEY
from data_catalog.samples.shard_index import INDEX as SHARD_INDEX
from data_catalog.samples.shard_index import read_index
from data_catalog.samples.shards import FIELD, scan_shard
from data_catalog.store.catalog import DAMAGED, INDEX, Catalog, Entry, make_entry
from data_catalog.store.fingerprint import digest_file, digest_files, digest_json, write_atomically
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import FOLDER_CHARS, RECORD, Store, parse_record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """File that differs from its record. `partition` is a key, `datasets/<name>` or `catalog`."""

    partition: str
    folder: str
    file: str  # below the folder
    problem: str
    expected: str = ""
    found: str = ""

    def error(self) -> UserError:
        """Return the damage as an error for the user."""
        message = f"{self.partition}: {self.problem}"
        fields = {"expected": self.expected, "found": self.found} if self.expected or self.found else {}
        hint = "stillroom repair    (makes this partition again)"
        return UserError(message, file=f"{self.folder}/{self.file}", **fields, hint=hint)


@dataclass
class Verification:
    """Result of a verification: the counts of records and files, and the damage."""

    records: int = 0
    files: int = 0
    damaged: list[Damage] = field(default_factory=list)

    @property
    def partitions(self) -> list[str]:
        """Keys of the damaged partitions, sorted."""
        return sorted({damage.partition for damage in self.damaged})


def verify(root: Path, threads: int = 4) -> Verification:
    """Check all records and snapshots below a data root. Hashing releases the interpreter lock, so threads help."""
    store, seen = Store(root), Verification()
    with ThreadPoolExecutor(threads) as pool:
        for count, damaged in pool.map(lambda found: _verify_partition(store, *found), store.folders()):
            seen.records += 1
            seen.files += count
            seen.damaged += damaged
    seen.damaged += _verify_index(store, seen.records)
    names = {path.parent for name in (MANIFEST, SAMPLES) for path in (root / "datasets").glob(f"[!.]*/{name}")}
    for folder in sorted(names):
        seen.files += 1
        seen.damaged += _verify_snapshot(folder)
    return seen


def note_damage(root: Path, damaged: list[Damage]) -> None:
    """Note the damage for later plans. A read-only data root keeps its old note."""
    notes: dict[str, dict[str, object]] = {}
    for damage in damaged:
        folder = Path(damage.folder)
        if folder.is_relative_to(root / "store") and (folder / RECORD).is_file():
            status = (folder / RECORD).stat()
            place = folder.relative_to(root / "store").as_posix()
            stamp = [status.st_mtime_ns, status.st_size]
            notes.setdefault(place, {"stamp": stamp, "file": damage.file, "problem": damage.problem})
    try:
        if notes or (root / DAMAGED).exists():
            write_atomically(root / DAMAGED, json.dumps(notes, indent=1).encode())
    except OSError as error:
        log.warning("the damage could not be noted for later plans: %s", error)


def _verify_index(store: Store, records: int) -> Iterator[Damage]:
    """Check that the index can be read and that its rows agree with the records they were read from."""
    folder, name = str(store.root / "catalog"), Path(INDEX).name
    if not (store.root / INDEX).is_file():
        if records:
            yield Damage("catalog", folder, name, "the index is missing")
        return
    try:
        pq.ParquetFile(store.root / INDEX, memory_map=False).read(Entry.__slots__)
        catalog = Catalog(store)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        yield Damage("catalog", folder, name, f"the index cannot be read: {error}")
        return
    for entry in (entry for by_name in catalog.entries.values() for entry in by_name.values()):
        place = catalog.folder(entry)
        try:
            status = os.stat(place / RECORD)  # noqa: PTH116 - as the catalog does
        except OSError:
            if not place.exists():
                yield Damage(entry.partition, str(place), RECORD, "the partition is missing")
            continue
        record, stamp = parse_record(place), (status.st_mtime_ns, status.st_size)
        if record is None or not record.honest or entry.stamp != stamp:
            continue  # reported above, or the record is newer than the row and will be read again
        true = make_entry(record, stamp, place)
        true.stamps = entry.stamps if entry.sizes == true.sizes else true.stamps
        if true != entry:
            yield Damage("catalog", folder, name, f"the index is wrong about {entry.partition}")


def _verify_partition(store: Store, folder: Path, recorded: bool) -> tuple[int, list[Damage]]:
    """Check a partition's folder; returns (number of hashed files, damage)."""
    key = folder.parent.relative_to(store.folder_of_all).as_posix()
    record = parse_record(folder)
    if record is None:
        problem = "the record cannot be read" if recorded else "the record is missing: it was not finished, or is lost"
        return 0, [Damage(key, str(folder), RECORD, problem)]
    damaged = list(_verify_record(record, key, folder))
    for name, entry in record.files.items():
        path = folder / name
        if not path.is_file():
            damaged.append(Damage(key, str(folder), name, "a file is missing"))
            continue
        try:
            found = digest_file(path)
        except OSError as error:
            damaged.append(Damage(key, str(folder), name, f"a file cannot be read: {error.strerror}"))
            continue
        if found != entry.sha256:
            problem = "a file is not the one its record describes"
            damaged.append(
                Damage(key, str(folder), name, problem, f"sha256:{entry.sha256[:12]}", f"sha256:{found[:12]}")
            )
        elif name.endswith(".tar"):
            damaged.extend(_verify_shard(key, folder, name))
    return len(record.files), damaged


def _verify_record(record: Record, key: str, folder: Path) -> Iterator[Damage]:
    """Check a record against itself."""
    if record.partition != key or Partition.parse(record.partition).stage != record.stage:
        yield Damage(key, str(folder), RECORD, "the record is of another partition", key, record.partition)
    fingerprint = digest_json(record.fingerprint_inputs)
    if fingerprint != record.fingerprint or fingerprint[:FOLDER_CHARS] != folder.name:
        yield Damage(
            key,
            str(folder),
            RECORD,
            "the record's fingerprint is not that of its inputs",
            fingerprint,
            record.fingerprint,
        )
    digest = digest_files({name: entry.sha256 for name, entry in record.files.items()})
    if digest != record.digest:
        yield Damage(key, str(folder), RECORD, "the record's digest is not that of its files", digest, record.digest)
    elif fingerprint == record.fingerprint and record.partition == key and not record.honest:
        yield Damage(key, str(folder), RECORD, "the record is not as it was written", record.seal, record.sealing())
    known = {*record.files, RECORD}
    for extra in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = extra.relative_to(folder).as_posix()
        if name not in known:
            yield Damage(key, str(folder), name, "a file that the record does not know")


def _verify_shard(key: str, folder: Path, name: str) -> Iterator[Damage]:
    """Check the keys and fields of a shard."""
    try:
        entries = scan_shard(folder / name)
    except tarfile.TarError as error:
        yield Damage(key, str(folder), name, f"the shard cannot be read: {error}")
        return
    for number, entry in enumerate(entries):
        if not KEY.fullmatch(entry.key) or not all(FIELD.fullmatch(part) for part in entry.fields):
            yield Damage(key, str(folder), name, f"'{entry.key}' has a wrong name", found=", ".join(entry.fields))
        if number and entry.key <= entries[number - 1].key:
            yield Damage(key, str(folder), name, f"the keys do not ascend at '{entry.key}'")
        if entry.fields.keys() != entries[0].fields.keys():
            fields = ", ".join(entries[0].fields)
            yield Damage(key, str(folder), name, f"'{entry.key}' has other fields", fields, ", ".join(entry.fields))
    try:
        if (folder / SHARD_INDEX).is_file() and list(read_index(folder / name).values()) != entries:
            yield Damage(key, str(folder), SHARD_INDEX, "the index is not that of the shard's headers")
    except UserError:
        return  # its digest already reports the changed file


def _verify_snapshot(folder: Path) -> list[Damage]:
    """Check a snapshot's name, and that each portrait is in one split only."""
    key = f"datasets/{folder.name}"
    try:
        digest = snapshot_digest(folder)
        if digest[:FOLDER_CHARS] != folder.name:
            return [
                Damage(
                    key,
                    str(folder),
                    SAMPLES,
                    "the dataset does not match its name",
                    folder.name,
                    digest[:16],
                )
            ]
        table = pq.read_table(folder / SAMPLES, columns=["portrait_id", "split"])
    except (OSError, pa.ArrowException) as error:
        return [Damage(key, str(folder), SAMPLES, f"the dataset cannot be read: {error}")]
    pairs = table.group_by(["portrait_id", "split"]).aggregate([])
    counts = pairs.group_by("portrait_id").aggregate([("split", "count")])
    leaks = counts.filter(pc.greater(counts.column("split_count"), 1)).column("portrait_id").to_pylist()
    return [Damage(key, str(folder), SAMPLES, f"the portrait {leak} is in two splits") for leak in sorted(leaks)[:10]]
