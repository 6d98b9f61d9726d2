"""Damage of any kind: `verify` names it, the plan does not count it, and exactly it is made again."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_catalog.care.mend import damaged_places, mend_snapshots, rebuild_index, remove_unfinished
from data_catalog.care.verify import note_damage, verify
from data_catalog.products.snapshot import MANIFEST, SAMPLES, open_snapshot
from data_catalog.store.catalog import INDEX, Catalog
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.store import RECORD, Store
from tests.worlds.instant import World
from tests.worlds.processes import memory_folder

TARGETS = ("portraits/0001", "edit/zombie/0000", "select/red-hair", "teach/zombie/0001", "dataset/all", "distill/all")


@pytest.fixture
def world() -> Iterator[World]:
    with memory_folder() as folder:
        made = World(folder / "world")
        made.build()
        yield made


def largest(folder: Path) -> Path:
    return max(
        (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD), key=lambda p: p.stat().st_size
    )


def flip_a_byte(folder: Path) -> None:
    """Flip a byte like a failing disk: the file's time stays."""
    path = largest(folder)
    status, content = path.stat(), bytearray(path.read_bytes())
    content[random.Random(len(content)).randrange(len(content))] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(folder: Path) -> None:
    os.truncate(largest(folder), largest(folder).stat().st_size - 1)


def delete_a_file(folder: Path) -> None:
    largest(folder).unlink()


def delete_the_record(folder: Path) -> None:
    (folder / RECORD).unlink()


def delete_the_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def add_a_file(folder: Path) -> None:
    (folder / "stray.txt").write_text("not mine")


def lie(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        record = json.loads((folder / RECORD).read_text())
        change(record)
        (folder / RECORD).write_text(json.dumps(record))

    return rewrite


KINDS: dict[str, Callable[[Path], None]] = {
    "flipped byte": flip_a_byte,
    "truncated": truncate,
    "file deleted": delete_a_file,
    "record deleted": delete_the_record,
    "folder deleted": delete_the_folder,
    "stray file": add_a_file,
    "record cut short": lambda folder: os.truncate(folder / RECORD, 40),
    "lie: samples": lie(lambda record: record.update(samples=99)),
    "lie: parts": lie(lambda record: record.update(parts={"0000": "x"})),
    "lie: settings": lie(lambda record: record["fingerprint_inputs"].update(settings={"steps": 1000})),
    "lie: partition": lie(lambda record: record.update(partition="edit/neon/0000")),
    "lie: files": lie(lambda record: record.update(files={}, digest=digest_json([]))),
    "lie: code": lie(lambda record: record.update(accepted=["0" * 64])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_damage_is_found_everywhere_and_exactly_mended(world: World, kind: str) -> None:
    true = world.digests()
    folders = {key: world.folder(key) for key in TARGETS}
    for folder in folders.values():
        KINDS[kind](folder)
    seen = verify(world.root)
    assert set(seen.partitions) == set(TARGETS)
    note_damage(world.root, seen.damaged)
    assert not set(TARGETS) & world.digests().keys()
    assert world.digests().keys() >= {"portraits/0000", "edit/red-hair/0000"}
    before = world.ran()
    assert sorted(world.build()) == sorted(TARGETS)
    assert world.ran() - before == dict.fromkeys(TARGETS, 1) | {f"step {step + 1}": 1 for step in range(12)}
    assert world.digests() == true
    assert verify(world.root).damaged == []
    assert world.build() == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("flipped byte", "stray file")])
def test_the_plan_sees_what_was_touched_without_being_told(world: World, kind: str) -> None:
    folder = world.folder("teach/zombie/0001")
    KINDS[kind](folder)
    assert "teach/zombie/0001" not in world.digests()


def test_a_byte_written_over_is_seen_by_its_time_and_a_copied_file_is_not_made_again(world: World) -> None:
    path = largest(world.folder("edit/zombie/0001"))
    os.utime(path, (1, 1))  # as a restored backup: touched, and the same
    assert "edit/zombie/0001" in world.digests()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    os.utime(path, (2, 2))
    plan = world.plan()
    assert [str(reason) for reason in plan.steps["edit/zombie/0001"].reasons] == [
        "damaged: edit.json is not the file its record describes"
    ]
    assert world.build() == ["edit/zombie/0001"]


def test_a_lost_or_lying_index_is_found_and_built_from_the_records(world: World) -> None:
    index = world.root / INDEX
    whole = world.digests()
    entries = Catalog(Store(world.root)).entries
    for damage in (index.unlink, lambda: index.write_bytes(b"PAR1 not"), lambda: _swap_digests(world)):
        damage()
        (found,) = {damage.partition for damage in verify(world.root).damaged}
        assert found == "catalog"
        assert rebuild_index(world.root) == len(whole)
        assert Catalog(Store(world.root)).entries == entries
        assert verify(world.root).damaged == []
    assert world.digests() == whole


def _swap_digests(world: World) -> None:
    catalog = Catalog(Store(world.root))
    (entry,) = catalog.entries["edit/zombie/0000"].values()
    entry.digest = "0" * 64
    catalog.changed = True
    catalog.save()


@pytest.mark.parametrize("name", [SAMPLES, MANIFEST])
def test_a_damaged_snapshot_is_put_back_from_its_partition(world: World, name: str) -> None:
    snapshot = open_snapshot(world.root)
    for spoil in (lambda path: path.write_bytes(b"spoilt"), lambda path: path.unlink()):
        spoil(snapshot.folder / name)
        seen = verify(world.root)
        assert seen.partitions == [f"datasets/{snapshot.folder.name}"]
        assert mend_snapshots(world.root, "dataset/all", seen.damaged) == seen.partitions
        assert verify(world.root).damaged == []
        assert open_snapshot(world.root, snapshot.digest).digest == snapshot.digest
        assert (snapshot.folder / "README.md").exists()
    (snapshot.folder / name).write_bytes(b"spoilt")
    assert world.build() == []  # and so does the next build, which publishes
    assert verify(world.root).damaged == []


def test_what_other_settings_made_is_told_and_left_and_what_nobody_finished_goes(world: World) -> None:
    old = world.folder("edit/zombie/0000")
    unfinished = world.folder("edit/zombie/0001")
    world.changes = {"edit": {"steps": 5}}
    world.build()
    flip_a_byte(old)
    (unfinished / RECORD).unlink()
    seen = verify(world.root)
    places = [f"edit/zombie/{block}/{folder.name}" for block, folder in (("0000", old), ("0001", unfinished))]
    assert damaged_places(world.root, seen.damaged) == places
    note_damage(world.root, seen.damaged)
    assert world.build() == []
    assert remove_unfinished(world.root, seen.damaged) == places[1:]
    assert [damage.folder for damage in verify(world.root).damaged if damage.file != RECORD] == [str(old)]
    world.changes = {}
    assert world.build() == ["edit/zombie/0000", "edit/zombie/0001"]
    rebuild_index(world.root)
    assert verify(world.root).damaged == []
