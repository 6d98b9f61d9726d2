"""Put right what `verify` found and what needs no computing: the index, unfinished folders, snapshots."""

from __future__ import annotations

import logging
from pathlib import Path

from data_catalog.catalog import INDEX, Catalog
from data_catalog.errors import UserError
from data_catalog.snapshot import mend_snapshot, snapshot_digest
from data_catalog.stage import Partition
from data_catalog.store import FOLDER_CHARS, Store, writing
from data_catalog.verify import Damage

log = logging.getLogger(__name__)


def damaged_places(root: Path, damaged: list[Damage]) -> list[str]:
    """Folders of damaged partitions below the store: `edit/zombie/0003/9f2c41d0...`."""
    store = root / "store"
    folders = {Path(damage.folder) for damage in damaged}
    return sorted(folder.relative_to(store).as_posix() for folder in folders if folder.is_relative_to(store))


def rebuild_index(root: Path) -> int:
    """Write the index anew from the records: no row of the old one is believed. Returns how many there are."""
    with writing(root):
        (root / INDEX).unlink(missing_ok=True)
    return Catalog(Store(root)).refresh()


def remove_unfinished(root: Path, damaged: list[Damage]) -> list[str]:
    """Remove damaged folders that have no record: nothing counts them or can make them whole. Returns them."""
    store, removed = Store(root), []
    for place in damaged_places(root, damaged):
        key, _, name = place.rpartition("/")
        try:
            partition = Partition.parse(key)
        except UserError:
            log.warning("%s is no partition; it is left", place)
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
