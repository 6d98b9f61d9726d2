"""Repair damage that `verify` found and that needs no computing: indexes, unfinished folders, snapshots."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from data_catalog.care.verify import Damage
from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import mend_snapshot, snapshot_digest
from data_catalog.samples.shard_index import INDEX as SHARD_INDEX
from data_catalog.samples.shard_index import index_bytes
from data_catalog.samples.shards import scan_shard
from data_catalog.store.catalog import INDEX, Catalog
from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.stage import Partition
from data_catalog.store.store import FOLDER_CHARS, Store, read_record, writing

log = logging.getLogger(__name__)


def damaged_places(root: Path, damaged: list[Damage]) -> list[str]:
    """Folders of damaged partitions below the store: `edit/zombie/0003/9f2c41d0...`."""
    store = root / "store"
    folders = {Path(damage.folder) for damage in damaged}
    return sorted(folder.relative_to(store).as_posix() for folder in folders if folder.is_relative_to(store))


def rebuild_index(root: Path) -> int:
    """Rebuild the index from the records, ignoring the old one. Returns the number of records."""
    with writing(root):
        (root / INDEX).unlink(missing_ok=True)
    return Catalog(Store(root)).refresh()


def mend_indexes(damaged: list[Damage]) -> list[str]:
    """Rebuild the indexes of intact shards from their headers, where the result matches the record.

    Returns the keys of the partitions that are whole again; they need not be computed.
    """
    wrong: dict[str, list[Damage]] = {}
    for damage in damaged:
        wrong.setdefault(damage.folder, []).append(damage)
    mended = []
    for folder, found in wrong.items():
        record = read_record(Path(folder)) if {damage.file for damage in found} == {SHARD_INDEX} else None
        shards = [name for name in record.files if name.endswith(".tar")] if record is not None else []
        if record is None or len(shards) != 1 or SHARD_INDEX not in record.files:
            continue
        content = index_bytes(scan_shard(Path(folder) / shards[0]))
        if hashlib.sha256(content).hexdigest() == record.files[SHARD_INDEX].sha256:
            write_atomically(Path(folder) / SHARD_INDEX, content)
            mended.append(record.partition)
    return sorted(mended)


def remove_unfinished(root: Path, damaged: list[Damage]) -> list[str]:
    """Remove damaged folders without a record: they are not counted and cannot be completed. Returns them."""
    store, removed = Store(root), []
    for place in damaged_places(root, damaged):
        key, _, name = place.rpartition("/")
        try:
            partition = Partition.parse(key)
        except UserError:
            log.warning("%s is not a partition; it stays", place)
            continue
        if store.discard(partition, name):
            removed.append(place)
    return removed


def mend_snapshots(root: Path, dataset: str, damaged: list[Damage]) -> list[str]:
    """Put the files of damaged snapshots back from the partitions (of this key) that they are copies of."""
    names = sorted({damage.partition for damage in damaged if damage.partition.startswith("datasets/")})
    if not names:
        return []
    catalog = Catalog(Store(root))
    folders = [catalog.folder(entry) for entry in catalog.history(dataset) if not catalog.problems(entry)]
    sources = {snapshot_digest(folder)[:FOLDER_CHARS]: folder for folder in folders}
    mended = [name for name in names if Path(name).name in sources]
    with writing(root):
        for name in mended:
            mend_snapshot(root / name, sources[Path(name).name])
    return mended
