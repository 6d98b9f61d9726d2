"""The catalog: a Parquet index over the records, so that a plan needs not read every one of them.

It is derived: a row is trusted only while its record file has the size and mtime it had when read,
and a lost or damaged index costs time, nothing else.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.record import Record
from data_catalog.stage import Partition
from data_catalog.store import FOLDER_CHARS, RECORD, Store, missing_files, read_record, writing

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """What a plan needs of a record; the columns of the index. `files` and `parts` are JSON objects."""

    partition: str
    stage: str
    fingerprint: str
    digest: str
    version: int
    source_digest: str
    accepted: str  # source digests, separated by spaces
    files: str
    parts: str
    samples: int
    rejected: int
    bytes: int
    seconds: float
    device: str
    created: str
    record_mtime_ns: int
    record_bytes: int

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        sizes: dict[str, int] = json.loads(self.files)
        return sizes

    def part(self, block: int) -> str:
        """Digest of what the partition says about one block; of a block that it does not know, `nothing`."""
        return str(_parse_parts(self.parts).get(f"{block:04d}", "nothing"))

    @property
    def stamp(self) -> tuple[int, int]:
        """(mtime, size) of the record file: another stamp is another record."""
        return (self.record_mtime_ns, self.record_bytes)

    def made_by(self, source_digest: str) -> bool:
        """Whether the bytes count as made by this code."""
        return source_digest == self.source_digest or source_digest in self.accepted.split()


@lru_cache(maxsize=64)  # each block of a style asks the same selection
def _parse_parts(text: str) -> dict[str, str]:
    parts: dict[str, str] = json.loads(text)
    return parts


SCHEMA = pa.schema(
    [
        (spec.name, {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}[str(spec.type)])
        for spec in fields(Entry)
    ]
)


class Catalog:
    """Entries by partition key and folder name. `save` is the only call that writes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.root / "catalog" / "records.parquet"
        self.entries: dict[str, dict[str, Entry]] = {}
        self.changed = False
        self._load()

    def _load(self) -> None:
        try:
            table = pq.ParquetFile(self.path, memory_map=False).read()
            columns = [table.column(name).to_pylist() for name in SCHEMA.names]
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException, KeyError) as error:
            log.warning("the index %s is damaged and will be made again: %s", self.path, error)
            return
        for row in zip(*columns, strict=True):
            entry = Entry(*row)
            self.entries.setdefault(entry.partition, {})[entry.fingerprint[:FOLDER_CHARS]] = entry

    def find(self, key: str, fingerprint: str) -> Entry | None:
        """The entry of exactly this partition and fingerprint, as the store has it now."""
        entry = self._current(key, fingerprint[:FOLDER_CHARS])
        return entry if entry is not None and entry.fingerprint == fingerprint else None

    def history(self, key: str) -> list[Entry]:
        """All entries of a partition, the newest first."""
        try:
            names = os.listdir(f"{self.store.folder_of_all}/{key}")  # noqa: PTH208
        except OSError:
            return []
        found = [self._current(key, name) for name in names if len(name) == FOLDER_CHARS]
        return sorted(filter(None, found), key=lambda entry: (entry.created, entry.record_mtime_ns), reverse=True)

    def read(self, entry: Entry) -> Record:
        """The whole record of an entry."""
        record = read_record(self.folder(entry))
        assert record is not None, f"{entry.partition} lost its record"
        return record

    def folder(self, entry: Entry) -> Path:
        """Where the files of an entry are."""
        return self.store.folder_of_all / entry.partition / entry.fingerprint[:FOLDER_CHARS]

    def problems(self, entry: Entry) -> list[str]:
        """Files that are missing or have another size."""
        folder = f"{self.store.folder_of_all}/{entry.partition}/{entry.fingerprint[:FOLDER_CHARS]}"
        return missing_files(folder, entry.sizes)

    def _current(self, key: str, name: str) -> Entry | None:
        """The entry of a folder, read again when its record is not the one that the index knows."""
        folder = f"{self.store.folder_of_all}/{key}/{name}"
        known = self.entries.get(key, {}).get(name)
        try:
            status = os.stat(f"{folder}/{RECORD}")  # noqa: PTH116 - the plan's hot loop
        except OSError:
            status = None
        if status is not None and known is not None and known.stamp == (status.st_mtime_ns, status.st_size):
            return known
        record = read_record(Path(folder)) if status is not None else None
        if status is None or record is None or (record.partition, record.fingerprint[:FOLDER_CHARS]) != (key, name):
            if known is not None:
                del self.entries[key][name]
                self.changed = True
            return None
        return self._add(record, (status.st_mtime_ns, status.st_size))

    def add(self, record: Record) -> Entry:
        """Take in a record that was just written."""
        status = (self.store.folder_of(record) / RECORD).stat()
        return self._add(record, (status.st_mtime_ns, status.st_size))

    def _add(self, record: Record, stamp: tuple[int, int]) -> Entry:
        entry = _entry(record, stamp)
        self.entries.setdefault(record.partition, {})[record.fingerprint[:FOLDER_CHARS]] = entry
        self.changed = True
        return entry

    def refresh(self) -> int:
        """Look at every record in the store and write the index. Returns how many there are."""
        self.entries, known = {}, self.entries
        count = 0
        for folder in self.store.record_folders():
            key = folder.parent.relative_to(self.store.folder_of_all).as_posix()
            if folder.name in known.get(key, {}):
                self.entries.setdefault(key, {})[folder.name] = known[key][folder.name]
            count += self._current(key, folder.name) is not None
        self.changed = self.changed or self.entries != known
        self.save()
        return count

    def save(self) -> None:
        """Write the index, if it changed: whole or not at all."""
        if not self.changed:
            return
        rows = [entry for _, by_name in sorted(self.entries.items()) for _, entry in sorted(by_name.items())]
        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
        temporary = self.path.with_name(f".records.{os.getpid()}.parquet")
        with writing(self.store.root):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                pq.write_table(pa.table(columns, schema=SCHEMA), temporary, compression="zstd")
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        self.changed = False


def accept(store: Store, key: str, name: str, source_digest: str) -> None:
    """Declare a partition's bytes valid for other code: its record names that code from now on."""
    record = read_record(store.folder(Partition.parse(key), name))
    if record is not None and source_digest not in (record.source_digest, *record.accepted):
        record.accepted = [*record.accepted, source_digest]
        store.write_record(record)


def _entry(record: Record, stamp: tuple[int, int]) -> Entry:
    return Entry(
        partition=record.partition,
        stage=record.stage,
        fingerprint=record.fingerprint,
        digest=record.digest,
        version=record.version,
        source_digest=record.source_digest,
        accepted=" ".join(record.accepted),
        files=json.dumps({name: entry.bytes for name, entry in record.files.items()}),
        parts=json.dumps(record.parts),
        samples=record.samples,
        rejected=sum(record.rejected.values()),
        bytes=record.bytes,
        seconds=record.seconds,
        device=record.device,
        created=record.created,
        record_mtime_ns=stamp[0],
        record_bytes=stamp[1],
    )
