"""Shards: plain ustar files that webdataset, datasets and tarfile read, byte-identical when written again."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_catalog.errors import UserError

KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,95}")
FIELD = re.compile(r"[a-z0-9_]+\.[a-z0-9]+")
FORMAT = tarfile.USTAR_FORMAT
NAME_MAX = 100  # bytes of a name in a ustar header

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("offset", pa.int64()),  # of the sample's first header
        ("bytes", pa.int64()),  # of the whole sample, headers and padding included
        ("fields", pa.list_(pa.string())),
        ("data_offsets", pa.list_(pa.int64())),  # of each field's content
        ("data_bytes", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True)
class Sample:
    """A key and the content of each of its fields, such as `portrait.png`."""

    key: str
    fields: dict[str, bytes]


@dataclass(frozen=True)
class ShardEntry:
    """Where a sample lies in its shard; `fields` maps a field to (offset, bytes) of its content."""

    key: str
    offset: int
    bytes: int
    fields: dict[str, tuple[int, int]]


def sample_key(portrait_id: str, style: str, prompt_number: int, attempt: int = 0) -> str:
    """`<portrait id>-<style slug>-<prompt number>-<attempt>`."""
    key = f"{portrait_id}-{style}-{prompt_number}-{attempt}"
    assert KEY.fullmatch(key), f"{key!r} is no sample key"
    return key


def write_shard(path: Path, samples: Iterable[Sample]) -> list[ShardEntry]:
    """Write a shard in one pass. Samples come in ascending order of keys and all have the same fields."""
    entries: list[ShardEntry] = []
    with path.open("xb") as stream, tarfile.open(fileobj=stream, mode="w", format=FORMAT) as tar:
        for sample in samples:
            previous = entries[-1] if entries else None
            _check_sample(sample, previous)
            start, fields = tar.offset, {}
            for name, data in sorted(sample.fields.items()):
                member = tarfile.TarInfo(f"{sample.key}.{name}")
                # An integer mtime: a float one makes tarfile write a PAX header with the time of writing.
                member.size, member.mtime, member.mode = len(data), 0, 0o644
                fields[name] = (tar.offset + tarfile.BLOCKSIZE, len(data))
                tar.addfile(member, io.BytesIO(data))
            entries.append(ShardEntry(sample.key, start, tar.offset - start, fields))
    return entries


def _check_sample(sample: Sample, previous: ShardEntry | None) -> None:
    assert KEY.fullmatch(sample.key), f"{sample.key!r} is no sample key"
    assert sample.fields, f"{sample.key} has no fields"
    for name in sample.fields:
        assert FIELD.fullmatch(name), f"{name!r} is no field name: one dot, lower case"
        assert len(sample.key) + 1 + len(name) <= NAME_MAX, f"{sample.key}.{name} is too long for ustar"
    if previous is not None:
        assert sample.key > previous.key, f"{sample.key} comes after {previous.key}: keys ascend"
        same = sample.fields.keys() == previous.fields.keys()
        assert same, f"{sample.key} has other fields: {sorted(sample.fields.keys() ^ previous.fields.keys())}"


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
    content: dict[str, bytes] = {}
    with path.open("rb") as stream:
        for name in entry.fields if fields is None else fields:
            offset, size = entry.fields[name]
            stream.seek(offset)
            content[name] = stream.read(size)
            if len(content[name]) != size:
                raise UserError(
                    f"the shard is shorter than its index says: {entry.key}.{name}",
                    file=path,
                    hint="stillroom verify",
                )
    return content


def read_shard(path: Path) -> Iterator[Sample]:
    """All samples of a shard in their order."""
    with path.open("rb") as stream:
        for entry in scan_shard(path):
            content = {}
            for name, (offset, size) in entry.fields.items():
                stream.seek(offset)
                content[name] = stream.read(size)
            yield Sample(entry.key, content)


def scan_shard(path: Path) -> list[ShardEntry]:
    """The index of a shard, made again from its headers."""
    entries: list[ShardEntry] = []
    with tarfile.open(path, "r:") as tar:  # seekable: "r|" would read every byte
        for member in tar:
            key, _, name = member.name.partition(".")
            padded = -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            end = member.offset_data + padded
            place = {name: (member.offset_data, member.size)}
            if entries and entries[-1].key == key:
                last = entries[-1]
                entries[-1] = ShardEntry(key, last.offset, end - last.offset, {**last.fields, **place})
            else:
                entries.append(ShardEntry(key, member.offset, end - member.offset, place))
    return entries
