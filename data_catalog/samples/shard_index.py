"""Index beside a shard: the place of each sample's fields. Rebuilt if it is missing, checked before use."""

from __future__ import annotations

import hashlib
import logging
import os
import tarfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.samples.shards import BLOCK, ShardEntry, entries_from_table, index_table, scan_shard, shard_bytes
from data_catalog.store.fingerprint import digest_file, write_atomically
from data_catalog.store.store import RECORD, read_record

log = logging.getLogger(__name__)

INDEX = "index.parquet"
HASHED = 2 << 30  # bytes of shards up to which their content is hashed too
THREADS = 4
HINT = "stillroom repair    (makes damaged partitions again)"


def read_index(shard: Path) -> dict[str, ShardEntry]:
    """Return a shard's entries by key, from its index, or from the shard's own headers if the index is missing."""
    if not shard.is_file():
        raise UserError("a shard of the dataset is gone", shard=shard, hint=HINT)
    index = shard.parent / INDEX
    try:
        entries = entries_from_table(pq.read_table(index)) if index.exists() else restore_index(shard)
    except (OSError, pa.ArrowException, KeyError, ValueError, tarfile.TarError) as error:
        raise UserError("the index of a shard cannot be read", shard=shard, cause=error, hint=HINT) from None
    return {entry.key: entry for entry in entries}


def restore_index(shard: Path) -> list[ShardEntry]:
    """Rebuild the index from the shard's headers, and store it unless the record promises another."""
    entries = scan_shard(shard)
    content = index_bytes(entries)
    record = read_record(shard.parent) if (shard.parent / RECORD).exists() else None
    promised = record.files.get(INDEX) if record is not None else None
    if promised is None or promised.sha256 == hashlib.sha256(content).hexdigest():
        write_atomically(shard.parent / INDEX, content)
        log.info("the index of %s was made again", shard)
    return entries


def write_index(folder: Path, entries: list[ShardEntry]) -> None:
    """Write the index of a shard that was just written to `folder`."""
    (folder / INDEX).write_bytes(index_bytes(entries))


def index_bytes(entries: list[ShardEntry]) -> bytes:
    """The index as a Parquet file. Equal entries give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(index_table(entries), sink)
    return sink.getvalue().to_pybytes()


def check_shards(shards: Mapping[Path, Collection[str]]) -> None:
    """Check shards before a training, and report all problems in one message.  shards: the wanted keys of each."""
    size = sum(shard.stat().st_size for shard in shards if shard.is_file())
    with ThreadPoolExecutor(THREADS) as pool:
        problems = pool.map(lambda shard: find_problem(shard, shards[shard], size <= HASHED), shards)
        found = [(shard, problem) for shard, problem in zip(shards, problems, strict=True) if problem]
    if size > HASHED:
        log.info("%.0f GB of shards fit their indexes; `stillroom verify` compares their contents too", size / 1e9)
    if found:
        shard, problem = found[0]
        more = f"{len(found)} of {len(shards)} shards" if len(found) > 1 else "this shard alone"
        raise UserError("the dataset is damaged", shard=shard, problem=problem, damaged=more, hint=HINT)


def find_problem(shard: Path, keys: Collection[str], with_content: bool) -> str | None:
    """Return the problem of a shard or its index; None if there is none.

    Looks at the size and at every header, which costs a page each, and with `with_content` at every byte.
    """
    try:
        entries = read_index(shard)
        lost = sorted(set(keys) - entries.keys())
        if lost:
            return f"the index does not know {lost[0]}"
        found, expected = shard.stat().st_size, shard_bytes(list(entries.values()))
        if found != expected:
            return f"the shard has {found} bytes, by its index {expected}"
        wrong = _wrong_header(shard, list(entries.values()))
        if wrong is not None:
            return f"the index says that {wrong} is where it is not"
        return _changed_file(shard) if with_content else None
    except UserError as error:
        return f"{error.message}: {error.fields['cause']}" if "cause" in error.fields else error.message
    except OSError as error:
        return error.strerror or str(error)


def _wrong_header(shard: Path, entries: list[ShardEntry]) -> str | None:
    """Return the first field whose header is not where the index has it."""
    descriptor = os.open(shard, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # headers lie apart: no reading ahead
        for entry in entries:
            for name, (offset, size) in entry.fields.items():
                member = f"{entry.key}.{name}"
                header = os.pread(descriptor, BLOCK, offset - BLOCK)
                if header[:100].rstrip(b"\0") != member.encode() or header[124:135] != b"%011o" % size:
                    return member
    finally:
        os.close(descriptor)
    return None


def _changed_file(shard: Path) -> str | None:
    """Return the shard or index that is not the file of its record."""
    record = read_record(shard.parent) if (shard.parent / RECORD).exists() else None
    for path in (shard, shard.parent / INDEX):
        promised = record.files.get(path.name) if record is not None else None
        if promised is not None and digest_file(path) != promised.sha256:
            return f"{path.name} is not the file its record describes"
    return None
