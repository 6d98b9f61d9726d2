"""The same inputs give the same bytes: elsewhere, in another order, with more workers, by two builds at once."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_catalog.care.verify import verify
from data_catalog.products.snapshot import open_snapshot
from data_catalog.store.execute import Job, execute
from data_catalog.store.record import Record
from data_catalog.store.store import RECORD, Store
from tests.worlds.instant import World
from tests.worlds.processes import fork, memory_folder, wait

TIMES = ("created", "seconds", "seal")  # what a record says of when, and the seal over that


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        yield made


def store_bytes(world: World) -> dict[str, bytes]:
    """Every file of store and snapshots, by its path; records without their times."""
    found: dict[str, bytes] = {}
    for top in ("store", "datasets"):
        for path in sorted((world.root / top).rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                if path.name == RECORD:
                    record = json.loads(content)
                    content = json.dumps({name: record[name] for name in record if name not in TIMES}).encode()
                found[path.relative_to(world.root).as_posix()] = content
    return found


def with_workers(count: int, seed: int) -> Callable[[list[Job], Path], list[Record]]:
    """Carry out a stage's jobs in any order, dealt to this many processes."""

    def carry_out(jobs: list[Job], root: Path) -> list[Record]:
        shuffled = random.Random(seed).sample(jobs, len(jobs))

        def work(share: list[Job]) -> None:
            for job in share:
                execute(job, root)

        workers = [fork(lambda share=shuffled[number::count]: work(share)) for number in range(count)]
        assert [wait(worker) for worker in workers] == [0] * count
        records = [Store(root).find(job.partition, job.fingerprint) for job in shuffled]
        return [record for record in records if record is not None]

    return carry_out


def test_the_store_is_the_same_on_another_path_in_another_order_with_one_or_four_workers(folder: Path) -> None:
    plain = World(folder / "plain")
    plain.build()
    true = store_bytes(plain)
    assert sum(path.endswith(RECORD) for path in true) == 14
    for place, workers in (("far/away", 1), ("elsewhere", 4)):
        other = World(folder / place)
        other.build(with_workers(workers, seed=workers))
        assert store_bytes(other) == true
        assert open_snapshot(other.root).digest == open_snapshot(plain.root).digest


def test_the_store_is_the_same_after_another_history(folder: Path) -> None:
    plain, other = World(folder / "plain"), World(folder / "other", styles=["neon", "zombie"])
    plain.build()
    other.changes = {"edit": {"steps": 3}}
    other.build()
    (other.place / "styles" / "neon.txt").unlink()
    other.set_style("red-hair", "Turn it into red-hair")
    other.changes = {}
    other.build()
    true, found = store_bytes(plain), store_bytes(other)
    assert {path: found.get(path) for path in true} == true


def test_two_builds_at_once_compute_nothing_twice_and_agree(folder: Path) -> None:
    alone = World(folder / "alone")
    alone.build()
    world = World(folder / "shared")
    (world.place / "slow").touch()  # so that they do meet

    def build() -> None:
        world.build()

    assert [wait(process) for process in [fork(build) for _ in range(3)]] == [0, 0, 0]
    assert world.ran() == alone.ran()
    assert store_bytes(world) == store_bytes(alone)
    assert verify(world.root).damaged == []
    assert world.build() == []


def test_two_builds_that_mend_the_same_damage_do_it_once(folder: Path) -> None:
    world = World(folder / "shared")
    world.build()
    (world.place / "slow").touch()
    for key in ("edit/zombie/0000", "teach/red-hair/0001"):
        path = next(path for path in world.folder(key).iterdir() if path.name != RECORD)
        path.write_text("spoilt")
    before = world.ran()

    def build() -> None:
        world.build()

    assert [wait(process) for process in [fork(build) for _ in range(2)]] == [0, 0]
    assert world.ran() - before == {"edit/zombie/0000": 1, "teach/red-hair/0001": 1}
    assert verify(world.root).damaged == []
