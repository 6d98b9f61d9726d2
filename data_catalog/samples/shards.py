"""Shards: plain ustar files that webdataset, datasets and tarfile read, byte-identical when written again."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from data_catalog.config.errors import UserError
from data_catalog.samples.keys import KEY
from data_catalog.store.fingerprint import sync_folder

FIELD = re.compile(r"[a-z0-9_]+\.[a-z0-9]+")
NAME_MAX = 100  # bytes of a name in a ustar header
BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE  # bytes; a tar ends at a multiple of the second
# Largest gap between two wanted fields, bytes, that is read over: cheaper than another call.
GAP = 1 << 16
PIECES_AT_ONCE = 1024  # pieces of one write call (IOV_MAX)

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("offset", pa.int64()),  # bytes before the sample's first header
        ("bytes", pa.int64()),  # size of the sample, headers and padding included
        ("fields", pa.list_(pa.string())),
        ("data_offsets", pa.list_(pa.int64())),  # offset of each field's content
        ("data_bytes", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True)
class Sample:
    """Sample: a key and the content of each of its fields, such as `portrait.png`."""

    key: str
    fields: dict[str, bytes]


@dataclass(frozen=True)
class ShardEntry:
    """Place of a sample in its shard; `fields` maps a field to (offset, bytes) of its content."""

    key: str
    offset: int
    bytes: int
    fields: dict[str, tuple[int, int]]


class Hasher(Protocol):
    """Hash object, as `hashlib` makes it."""

    def update(self, data: bytes, /) -> None: ...


def write_shard(path: Path, samples: Iterable[Sample], hasher: Hasher | None = None) -> list[ShardEntry]:
    """Write a shard in one pass; once it has its name, it is whole and on the disk.

    Samples come in ascending order of keys and all have the same fields.  hasher: receives the shard's bytes.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Hashed on another thread: hashing costs twice as much as writing.
        with temporary.open("xb", buffering=0) as stream, ThreadPoolExecutor(1) as beside:
            entries: list[ShardEntry] = []
            for entry, pieces in _members(samples):
                if hasher is not None:
                    beside.submit(_feed, hasher, pieces)
                _write_fully(stream.fileno(), pieces)
                entries += [entry] if entry else []
            os.fsync(stream.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return entries


def _write_fully(descriptor: int, pieces: list[bytes]) -> None:
    """Write pieces one after the other straight from memory: a buffer would copy them."""
    left: list[bytes | memoryview] = list(pieces)
    while left:
        count = os.writev(descriptor, left[:PIECES_AT_ONCE])
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if count:
            left[0] = memoryview(left[0])[count:]


def _feed(hasher: Hasher, pieces: list[bytes]) -> None:
    for piece in pieces:
        hasher.update(piece)


def _members(samples: Iterable[Sample]) -> Iterator[tuple[ShardEntry | None, list[bytes]]]:
    """Entry and bytes of each sample, and last the bytes of the end."""
    last: ShardEntry | None = None
    end = 0
    for sample in samples:
        _check_sample(sample, last)
        start, fields, pieces = end, {}, []
        for name, data in sorted(sample.fields.items()):
            member = tarfile.TarInfo(f"{sample.key}.{name}")
            # An integer mtime: with a float, tarfile writes a PAX header with the time of writing.
            member.size, member.mtime, member.mode = len(data), 0, 0o644
            pieces += [member.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % BLOCK)]
            fields[name] = (end + BLOCK, len(data))
            end += BLOCK + _padded(len(data), BLOCK)
        last = ShardEntry(sample.key, start, end - start, fields)
        yield last, pieces
    yield None, [bytes(shard_bytes([last] if last else []) - end)]


def shard_bytes(entries: Sequence[ShardEntry]) -> int:
    """Return the size of the shard with these entries: two empty blocks at the end, padded to a whole record."""
    end = entries[-1].offset + entries[-1].bytes if entries else 0
    return _padded(end + 2 * BLOCK, RECORD)


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _check_sample(sample: Sample, previous: ShardEntry | None) -> None:
    """Raise ValueError for a sample that readers would misread."""
    if not KEY.fullmatch(sample.key):
        raise ValueError(f"{sample.key!r} is no sample key")
    if not sample.fields:
        raise ValueError(f"{sample.key} has no fields")
    for name in sample.fields:
        if not FIELD.fullmatch(name):
            raise ValueError(f"{name!r} is no field name: one dot, lower case")
        if len(sample.key) + 1 + len(name) > NAME_MAX:
            raise ValueError(f"{sample.key}.{name} is too long for ustar")
    if previous is not None and sample.key <= previous.key:
        raise ValueError(f"{sample.key} comes after {previous.key}: keys ascend")
    if previous is not None and (other := sample.fields.keys() ^ previous.fields.keys()):
        raise ValueError(f"{sample.key} has other fields: {sorted(other)}")


def index_table(entries: list[ShardEntry]) -> pa.Table:
    """The entries as a table of `INDEX_SCHEMA`."""
    rows = [
        {
            "key": entry.key,
            "offset": entry.offset,
            "bytes": entry.bytes,
            "fields": list(entry.fields),
            "data_offsets": [offset for offset, _ in entry.fields.values()],
            "data_bytes": [size for _, size in entry.fields.values()],
        }
        for entry in entries
    ]
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


def entries_from_table(table: pa.Table) -> list[ShardEntry]:
    """The entries of an index table; columns beyond `INDEX_SCHEMA` are ignored."""
    return [
        ShardEntry(
            row["key"],
            row["offset"],
            row["bytes"],
            dict(zip(row["fields"], zip(row["data_offsets"], row["data_bytes"], strict=True), strict=True)),
        )
        for row in table.select(INDEX_SCHEMA.names).to_pylist()
    ]


def read_sample(path: Path, entry: ShardEntry, fields: Iterable[str] | None = None) -> dict[str, bytes]:
    """Content of one sample, or of some of its fields, by offset."""
    names = list(entry.fields if fields is None else fields)
    content = read_into(path, entry, names, np.empty(bytes_to_read(entry, names), np.uint8))
    return {name: content[name].tobytes() for name in names}


def bytes_to_read(entry: ShardEntry, fields: Iterable[str]) -> int:
    """Return the bytes that `read_into` needs for these fields of a sample."""
    return sum(_padded(end - start, BLOCK) for start, end, _ in _runs(entry, fields))


def read_into(path: Path, entry: ShardEntry, fields: Iterable[str], buffer: np.ndarray) -> dict[str, np.ndarray]:
    """Read fields of a sample into a buffer, with as few positioned reads as they need.

    buffer: (n,) uint8, n at least `bytes_to_read`.  Returns each field's content, (size,) uint8, inside the buffer.
    """
    content: dict[str, np.ndarray] = {}
    at = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for start, end, names in _runs(entry, fields):
            found = _read_fully(descriptor, start, buffer.data[at : at + end - start])
            for name in names:
                offset, size = entry.fields[name]
                if offset + size > start + found:
                    problem = f"the shard is shorter than its index says: {entry.key}.{name}"
                    raise UserError(problem, file=path, hint="stillroom repair    (makes it again)")
                content[name] = buffer[at + offset - start :][:size]
            at += _padded(end - start, BLOCK)
    finally:
        os.close(descriptor)
    return content


def _runs(entry: ShardEntry, fields: Iterable[str]) -> list[tuple[int, int, list[str]]]:
    """(start, end, fields) of the pieces of the shard that hold some fields, in order."""
    runs: list[tuple[int, int, list[str]]] = []
    for (offset, size), name in sorted((entry.fields[name], name) for name in fields):
        if runs and offset - runs[-1][1] <= GAP:
            runs[-1] = (runs[-1][0], offset + size, [*runs[-1][2], name])
        else:
            runs.append((offset, offset + size, [name]))
    return runs


def _read_fully(descriptor: int, offset: int, buffer: memoryview) -> int:
    """Fill a buffer from an offset on; returns the bytes found, fewer at the end of the file."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if not count:
            break
        done += count
    return done


def scan_shard(path: Path) -> list[ShardEntry]:
    """Rebuild the index of a shard from its headers."""
    entries: list[ShardEntry] = []
    with tarfile.open(path, "r:") as tar:  # seekable: "r|" would read every byte
        for member in tar:
            key, _, name = member.name.partition(".")
            end = member.offset_data + _padded(member.size, BLOCK)
            place = {name: (member.offset_data, member.size)}
            if entries and entries[-1].key == key:
                last = entries[-1]
                entries[-1] = ShardEntry(key, last.offset, end - last.offset, {**last.fields, **place})
            else:
                entries.append(ShardEntry(key, member.offset, end - member.offset, place))
    return entries
