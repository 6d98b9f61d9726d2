"""kill -9 at any operation on the disk: the same command goes on, and nothing is lost, wrong or made twice."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_catalog.care.verify import note_damage, verify
from data_catalog.products.snapshot import open_snapshot
from data_catalog.store.store import RECORD
from tests.worlds.instant import CHECKPOINT_EVERY, World
from tests.worlds.processes import fork, kill_at, memory_folder, operations, wait

POINTS = 36  # of each history, at least

# Where a kill may hit, by a piece of the operation's line; every kind is hit at least this often.
KINDS = {
    "stillroom.half store": 6,  # in the middle of a file
    "os.rename store": 6,  # before a partition gets its name, and before its record does
    f"open store .{RECORD}": 6,  # between the two
    "catalog/.records": 3,  # while the index is written
    "os.rename catalog": 3,  # ... and before it takes the place of the old one
    "distill/all/.part-": 6,  # in the middle of training
    "datasets/": 4,  # while the snapshot is published
}


def prepare_new(world: World) -> None:
    """Nothing is there yet."""


def prepare_changed(world: World) -> None:
    """A setting changed after a build: all but the portraits are made anew, beside the old."""
    world.build()
    world.changes = {"edit": {"steps": 3}}


def prepare_damaged(world: World) -> None:
    """Files are damaged in the same places where the new ones will stand."""
    world.build()
    folders = {key: world.folder(key) for key in world.plan().steps}
    for key, name in {"edit/zombie/0001": "edit.json", "teach/red-hair/0000": "shard.txt", "distill/all": ""}.items():
        path = folders[key] / (name or "student.txt")
        path.write_bytes(b"x" + path.read_bytes()[1:])
    (folders["dataset/all"] / RECORD).write_text("{}")
    note_damage(world.root, verify(world.root).damaged)


def choose_points(lines: list[str], seed: int) -> list[int]:
    """Operations to be killed at: some of every kind, and others anywhere."""
    draw = random.Random(seed)
    chosen: set[int] = set()
    for kind, count in KINDS.items():
        mine = [number for number, line in enumerate(lines) if all(part in line for part in kind.split())]
        chosen.update(draw.sample(mine, min(count, len(mine))))
    rest = sorted(set(range(len(lines))) - chosen)
    return sorted([*chosen, *draw.sample(rest, max(0, min(len(rest), POINTS - len(chosen))))])


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


def contents(world: World) -> tuple[dict[str, str], str]:
    """All digests, and that of the published snapshot."""
    return world.digests(), open_snapshot(world.root).digest


@pytest.mark.parametrize("prepare", [prepare_new, prepare_changed, prepare_damaged])
def test_killed_anywhere_the_same_command_ends_as_if_nothing_had_been(
    folder: Path, prepare: Callable[[World], None]
) -> None:
    pristine = World(folder / "world")
    prepare(pristine)
    shutil.copytree(pristine.place, folder / "prepared")  # copytree keeps the times
    lines = operations(pristine.root, lambda: _build(pristine))
    true, needed = contents(pristine), pristine.ran()
    points = choose_points(lines, seed=len(lines))
    assert len(points) >= POINTS
    for point in points:
        shutil.rmtree(pristine.place)
        shutil.copytree(folder / "prepared", pristine.place)
        kill_at(point, pristine.root, lambda: _build(pristine))
        pristine.build()
        where = f"operation {point}: {lines[point]}"
        assert contents(pristine) == true, where
        check_repeats(pristine.ran() - needed, where)
        if point % 4 == 0:
            assert verify(pristine.root).damaged == [], where


def _build(world: World) -> None:
    world.build()


def check_repeats(again: Counter[str], where: str) -> None:
    """At most one partition was started twice; of the training, at most the steps since the last checkpoint."""
    steps = sum(count for key, count in again.items() if key.startswith("step "))
    partitions = sum(again.values()) - steps
    assert partitions <= 1, f"{where}: {again}"
    assert steps <= CHECKPOINT_EVERY, f"{where}: {again}"


def test_a_hundred_points_of_every_kind_are_killed_at(folder: Path) -> None:
    world = World(folder / "world")
    lines = operations(world.root, lambda: _build(world))
    found = {kind: sum(all(part in line for part in kind.split()) for line in lines) for kind in KINDS}
    assert all(found[kind] >= count for kind, count in KINDS.items()), found
    assert 3 * POINTS >= 100


def test_nobody_waits_for_the_lock_of_a_dead_process(folder: Path) -> None:
    world = World(folder / "world")
    lines = operations(world.root, lambda: _build(world))
    held = next(number for number, line in enumerate(lines) if line.startswith("stillroom.half store/portraits"))
    shutil.rmtree(world.root)
    kill_at(held, world.root, lambda: _build(world))  # it held the lock of portraits/0000
    successor = fork(lambda: _build(world))
    assert wait(successor) == 0
