"""Hash every file of every record again, and check what the shards and snapshots promise."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.errors import UserError
from data_catalog.fingerprint import digest_file, digest_files, digest_json
from data_catalog.record import Record
from data_catalog.shards import FIELD, KEY, scan_shard
from data_catalog.snapshot import SAMPLES, snapshot_digest
from data_catalog.stage import Partition
from data_catalog.store import FOLDER_CHARS, RECORD, Store, read_record


@dataclass(frozen=True)
class Damage:
    """One thing that is not what its record says. `partition` is a key, or `datasets/<name>`."""

    partition: str
    folder: str
    file: str  # below the folder
    problem: str
    expected: str = ""
    found: str = ""

    def error(self) -> UserError:
        """As a message for the user."""
        message = f"{self.partition}: {self.problem}"
        fields = {"expected": self.expected, "found": self.found} if self.expected or self.found else {}
        hint = "stillroom build    (makes this partition again)"
        return UserError(message, file=f"{self.folder}/{self.file}", **fields, hint=hint)


@dataclass
class Verification:
    """What was looked at, and what is wrong."""

    records: int = 0
    files: int = 0
    damaged: list[Damage] = field(default_factory=list)

    @property
    def partitions(self) -> list[str]:
        """Keys of the damaged partitions, sorted."""
        return sorted({damage.partition for damage in self.damaged})


def verify(root: Path, threads: int = 4) -> Verification:
    """Check all records and snapshots below a data root. Hashing lets go of the interpreter: threads help."""
    store, seen = Store(root), Verification()
    with ThreadPoolExecutor(threads) as pool:
        for count, damaged in pool.map(lambda folder: _verify_partition(store, folder), store.record_folders()):
            seen.records += 1
            seen.files += count
            seen.damaged += damaged
    for folder in sorted(path.parent for path in (root / "datasets").glob(f"[!.]*/{SAMPLES}")):
        seen.files += 1
        seen.damaged += _verify_snapshot(folder)
    return seen


def remove_damaged(root: Path, damaged: list[Damage]) -> list[str]:
    """Take the record from each damaged partition: the next build makes it again. Returns their keys."""
    keys = []
    for damage in damaged:
        record = Path(damage.folder) / RECORD
        if record.is_file() and record.is_relative_to(root / "store"):
            record.unlink()
            keys.append(damage.partition)
    return sorted(keys)


def _verify_partition(store: Store, folder: Path) -> tuple[int, list[Damage]]:
    """(files hashed, what is wrong) of one record's folder."""
    key = folder.parent.relative_to(store.folder_of_all).as_posix()
    record = read_record(folder)
    if record is None:
        return 0, [Damage(key, str(folder), RECORD, "the record cannot be read")]
    damaged = list(_verify_record(record, key, folder))
    for name, entry in record.files.items():
        path = folder / name
        if not path.is_file():
            damaged.append(Damage(key, str(folder), name, "a file is missing"))
            continue
        found = digest_file(path)
        if found != entry.sha256:
            problem = "a file is not the one its record describes"
            damaged.append(
                Damage(key, str(folder), name, problem, f"sha256:{entry.sha256[:12]}", f"sha256:{found[:12]}")
            )
        elif name.endswith(".tar"):
            damaged.extend(_verify_shard(key, folder, name))
    return len(record.files), damaged


def _verify_record(record: Record, key: str, folder: Path) -> Iterator[Damage]:
    """What a record says about itself."""
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
    known = {*record.files, RECORD}
    for extra in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = extra.relative_to(folder).as_posix()
        if name not in known:
            yield Damage(key, str(folder), name, "a file that the record does not know")


def _verify_shard(key: str, folder: Path, name: str) -> Iterator[Damage]:
    """Keys and fields of a shard."""
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


def _verify_snapshot(folder: Path) -> list[Damage]:
    """A snapshot's name, and that no portrait is in two splits."""
    key = f"datasets/{folder.name}"
    try:
        digest = snapshot_digest(folder)
        if digest[:FOLDER_CHARS] != folder.name:
            return [
                Damage(
                    key,
                    str(folder),
                    SAMPLES,
                    "the dataset is not the one its name says",
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
