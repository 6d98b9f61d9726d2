"""A disk that is full or may not be written: one clear message, nothing half-written that counts, and on it goes."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_catalog.care.verify import verify
from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import open_snapshot
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.store import check_writable
from tests.worlds.instant import World
from tests.worlds.processes import as_nobody, fork, memory_folder, wait


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as made:
        made.chmod(0o755)
        yield made


def told(world: World, before: Callable[[], None]) -> str:
    """Return the message of a build that fails in its own process, after `before` was applied to that process."""
    reading, writing = os.pipe()  # no file: the process may be allowed to write none

    def build() -> None:
        before()
        try:
            world.build()
        except UserError as error:
            os.write(writing, str(error).encode())

    assert wait(fork(build)) == 0
    os.close(writing)
    with os.fdopen(reading) as stream:
        return stream.read()


def test_a_build_stopped_by_a_limit_of_bytes_goes_on_when_it_is_lifted(folder: Path) -> None:
    whole, world = World(folder / "whole"), World(folder / "world")
    whole.build()
    for limit in (200, 700, 1500, 3000):  # bytes a file, so that it stops at ever later points
        message = told(world, lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        assert message.startswith("a file would be larger than this process may write"), (limit, message)
        assert "ulimit -f" in message
        assert [damage for damage in verify(world.root).damaged if damage.partition != "catalog"] == []
    world.build()
    assert world.digests() == whole.digests()
    assert verify(world.root).damaged == []


FULL = """
import os, shutil, sys
from pathlib import Path
from data_catalog.config.errors import UserError
from data_catalog.products.snapshot import open_snapshot
from data_catalog.care.verify import verify
from tests.worlds.instant import World

world = World(Path(sys.argv[1]) / "world")
ballast = world.place / "ballast"
ballast.write_bytes(bytes(int(sys.argv[2])))  # a foreign file fills most of the disk
free = 0
for attempt in range(100):
    try:
        world.build()
        break
    except UserError as error:
        assert str(error).startswith("there is no space left on the disk"), error
        assert "free some space" in str(error)
    found = [damage for damage in verify(world.root).damaged if damage.partition != "catalog"]
    assert not found, found
    os.truncate(ballast, max(ballast.stat().st_size - 8192, 0))  # room is made, a little at a time
assert verify(world.root).damaged == []
print(attempt, open_snapshot(world.root).digest)
"""


def test_a_build_on_a_full_disk_says_so_and_goes_on_as_room_is_made(folder: Path, tmp_path: Path) -> None:
    whole = World(folder / "whole")
    whole.build()
    mount = f"mount -t tmpfs -o size=512k tmpfs {tmp_path} && exec {sys.executable} -c '{FULL}' {tmp_path} 480000"
    spaces = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    project = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    ended = subprocess.run(
        [*spaces, "sh", "-c", mount], capture_output=True, text=True, env=environment, cwd=project, check=False
    )
    if "mount" in ended.stderr or "unshare" in ended.stderr:
        pytest.skip(f"this system lets a test mount nothing: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stderr
    attempts, digest = ended.stdout.split()
    assert int(attempts) > 3, "the disk was not full"
    assert digest == open_snapshot(whole.root).digest


def test_a_store_without_permission_is_planned_and_verified_but_not_written(folder: Path) -> None:
    world = World(folder / "world")
    world.build()
    true = world.digests()
    world.changes = {"edit": {"steps": 3}}
    for place in (world.root, *world.root.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
    message = told(world, as_nobody)
    assert message.startswith("the data root cannot be written")
    assert "Permission denied" in message
    assert "STILLROOM_DATA" in message

    def read() -> None:
        as_nobody()
        assert verify(world.root).damaged == []
        assert len(world.digests()) == 2
        world.changes = {}
        assert world.digests() == true
        with pytest.raises(UserError, match="the data root cannot be written"):
            check_writable(world.root)

    assert wait(fork(read)) == 0
    for place in (world.root, *world.root.rglob("*")):
        place.chmod(0o755 if place.is_dir() else 0o644)
    assert len(world.build()) == 12


@pytest.mark.parametrize(
    "place", ["store", "store/edit", "store/edit/zombie/0000", "catalog", "catalog/locks", "datasets"]
)
def test_a_file_where_a_folder_is_needed_is_said_and_in_no_way_lost(folder: Path, place: str) -> None:
    world = World(folder / "world")
    path = world.root / place
    path.parent.mkdir(parents=True)
    path.write_text("a letter")
    with pytest.raises(UserError, match="a file stands where a folder is needed") as caught:
        world.build()
    assert place.partition("/")[0] in caught.value.fields["path"]
    assert path.read_text() == "a letter"
    path.unlink()
    world.build()
    assert verify(world.root).damaged == []


def test_a_read_only_file_system_is_said(folder: Path) -> None:
    world = World(folder / "world")
    world.build()
    digest = digest_json(world.digests())
    world.changes = {"edit": {"steps": 3}}
    script = (
        "import sys; from pathlib import Path; from data_catalog.config.errors import UserError\n"
        "from data_catalog.store.store import check_writable\n"
        "try: check_writable(Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
    )
    spaces = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount --bind {world.root} {world.root} && mount -o remount,ro,bind {world.root}"
    command = [*spaces, "sh", "-c", f"{mount} && exec {sys.executable} -c '{script}' {world.root}"]
    project = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=project, check=False)
    if "mount" in ended.stderr or "unshare" in ended.stderr:
        pytest.skip(f"this system lets a test mount nothing: {ended.stderr.strip()}")
    assert ended.stdout.startswith("the data root cannot be written"), ended.stderr
    assert "Read-only file system" in ended.stdout
    world.changes = {}
    assert digest_json(world.digests()) == digest
