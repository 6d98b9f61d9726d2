"""Catalog: a Parquet index over the records, so that a plan needs not read each of them.

The index is derived. A row counts only while its record file has the size and mtime of when it was read; a lost or
damaged index costs only time. A file that was touched since is hashed again.
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

from data_catalog.config.errors import UserError
from data_catalog.store.fingerprint import digest_file
from data_catalog.store.record import MORE, Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import FOLDER_CHARS, RECORD, Store, look_at_files, read_record, writing

log = logging.getLogger(__name__)

INDEX, DAMAGED = "catalog/records.parquet", "catalog/damaged.json"  # below the data root


@dataclass(slots=True)
class Entry:
    """Row of the index: the part of a record that a plan needs. `stamps` and `parts` are JSON objects."""

    partition: str
    stage: str
    fingerprint: str
    digest: str
    version: int
    source_digest: str
    accepted: str  # source digests, separated by spaces
    stamps: str  # bytes and mtime (ns) of each file
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
    def files(self) -> dict[str, list[int]]:
        """Return [bytes, mtime in ns] of each file; the mtime is from when the record was read."""
        files: dict[str, list[int]] = json.loads(self.stamps)
        return files

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: size for name, (size, _) in self.files.items()}

    def part(self, place: str) -> str:
        """Return the digest of the partition's part for a block, or `nothing` for an unknown block."""
        return str(_parse_parts(self.parts).get(place, "nothing"))

    @property
    def more(self) -> list[str]:
        """Return the places of the attempts that the partition asks for."""
        return _parse_parts(self.parts).get(MORE, "").split()

    @property
    def stamp(self) -> tuple[int, int]:
        """Return (mtime, size) of the record file; another stamp means another record."""
        return (self.record_mtime_ns, self.record_bytes)

    def made_by(self, source_digest: str) -> bool:
        """Whether the bytes count as made by this code."""
        return source_digest == self.source_digest or source_digest in self.accepted.split()


@lru_cache(maxsize=64)  # every block of a style reads the same selection
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
        self.path = store.root / INDEX
        self.entries: dict[str, dict[str, Entry]] = {}
        self.changed = False
        self.damaged = read_damage_notes(store.root)
        self._load()

    def _load(self) -> None:
        try:
            table = pq.ParquetFile(self.path, memory_map=False).read()
            columns = [table.column(name).to_pylist() for name in SCHEMA.names]
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            log.warning("the index %s is damaged and will be made again: %s", self.path, error)
            return
        for row in zip(*columns, strict=True):
            entry = Entry(*row)
            self.entries.setdefault(entry.partition, {})[entry.fingerprint[:FOLDER_CHARS]] = entry

    def find(self, key: str, fingerprint: str) -> Entry | None:
        """Return the entry of exactly this partition and fingerprint, as the store has it now."""
        entry = self._current(key, fingerprint[:FOLDER_CHARS])
        return entry if entry is not None and entry.fingerprint == fingerprint else None

    def history(self, key: str) -> list[Entry]:
        """List the entries of a partition, the newest first."""
        try:
            names = os.listdir(f"{self.store.folder_of_all}/{key}")  # noqa: PTH208
        except OSError:
            return []
        found = [self._current(key, name) for name in names if len(name) == FOLDER_CHARS]
        return sorted(filter(None, found), key=lambda entry: (entry.created, entry.record_mtime_ns), reverse=True)

    def read(self, entry: Entry) -> Record:
        """Read the whole record of an entry."""
        record = read_record(self.folder(entry))
        if record is None:
            hint = "stillroom repair    (makes it again)"
            raise UserError(f"{entry.partition} lost its record", folder=self.folder(entry), hint=hint)
        return record

    def folder(self, entry: Entry) -> Path:
        """Return the folder of an entry's files."""
        return self.store.folder_of_all / entry.partition / entry.fingerprint[:FOLDER_CHARS]

    def problems(self, entry: Entry) -> list[str]:
        """List damage noted by `verify`, files that are missing or of another size, and touched files that changed."""
        place = f"{entry.partition}/{entry.fingerprint[:FOLDER_CHARS]}"
        note = self.damaged.get(place)
        if note is not None and tuple(note["stamp"]) == entry.stamp:
            return [f"{note['file']}: {note['problem']}"]
        problems, touched = look_at_files(f"{self.store.folder_of_all}/{place}", entry.files)
        return problems + (self._look_again(entry, touched) if touched else [])

    def _look_again(self, entry: Entry, touched: list[str]) -> list[str]:
        """Hash files whose mtime differs from the index. If all are unchanged, the index takes the new mtimes."""
        folder, record = self.folder(entry), self.read(entry)
        changed = [name for name in touched if digest_file(folder / name) != record.files[name].sha256]
        if not changed:
            entry.stamps = _stamps(folder, record)
            self.changed = True
        return [f"{name} is not the file its record describes" for name in changed]

    def _current(self, key: str, name: str) -> Entry | None:
        """Return the entry of a folder; its record is read again when it differs from the index."""
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
        """Add a record that was just written."""
        status = (self.store.folder_of(record) / RECORD).stat()
        return self._add(record, (status.st_mtime_ns, status.st_size))

    def _add(self, record: Record, stamp: tuple[int, int]) -> Entry:
        entry = make_entry(record, stamp, self.store.folder_of(record))
        self.entries.setdefault(record.partition, {})[record.fingerprint[:FOLDER_CHARS]] = entry
        self.changed = True
        return entry

    def refresh(self) -> int:
        """Look at every record in the store and write the index. Returns the number of records."""
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
        """Write the index if it changed, atomically."""
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
    """Declare a partition's bytes valid for other code; its record names that code from now on."""
    record = read_record(store.folder(Partition.parse(key), name))
    if record is not None and source_digest not in (record.source_digest, *record.accepted):
        record.accepted = [*record.accepted, source_digest]
        store.write_record(record)


def read_damage_notes(root: Path) -> dict[str, dict[str, Any]]:
    """Read the damage that `verify` noted, by folder below the store: `stamp` of the record, `file`, `problem`."""
    try:
        notes: dict[str, dict[str, Any]] = json.loads((root / DAMAGED).read_bytes())
    except (OSError, ValueError):
        return {}  # nothing was found, or the note is lost: verify finds it again
    return notes


def make_entry(record: Record, stamp: tuple[int, int], folder: Path) -> Entry:
    """The row of a record whose file has this stamp."""
    return Entry(
        partition=record.partition,
        stage=record.stage,
        fingerprint=record.fingerprint,
        digest=record.digest,
        version=record.version,
        source_digest=record.source_digest,
        accepted=" ".join(record.accepted),
        stamps=_stamps(folder, record),
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


def _stamps(folder: Path, record: Record) -> str:
    """Return [bytes, mtime] of each file as JSON; a missing file has mtime 0."""
    stamps = {}
    for name, entry in record.files.items():
        try:
            mtime = os.stat(f"{folder}/{name}").st_mtime_ns  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            mtime = 0
        stamps[name] = [entry.bytes, mtime]
    return json.dumps(stamps)
