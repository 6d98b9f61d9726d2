"""Nothing that a kept dataset needs is ever deleted, and what nothing needs is said before it goes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from data_catalog.care.gc import PINNED, Findings, find_waste, remove_waste
from data_catalog.care.verify import verify
from data_catalog.config.places import PROJECT
from data_catalog.products.snapshot import list_snapshots
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from tests.worlds.declared import Workshop


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Three snapshots: both styles, only red-hair, red-hair edited anew. The zombies are in the first alone."""
    shop = Workshop(tmp_path_factory.mktemp("built"))
    shop.build()
    shop.publish()
    (shop.styles / "zombie.txt").unlink()
    shop.build()
    shop.publish()
    shop.overrides = ["edit.steps=7"]
    shop.build()
    shop.publish()
    for age, snapshot in enumerate(reversed(list_snapshots(shop.root))):
        stamp = 1_800_000_000 - age
        os.utime(snapshot.folder / "manifest.json", (stamp, stamp))
    return shop


@pytest.fixture
def shop(built: Workshop, tmp_path: Path) -> Workshop:
    copy = Workshop(tmp_path)
    shutil.copytree(built.root, copy.root)
    copy.styles, copy.overrides = built.styles, built.overrides  # the path of the styles is a setting
    return copy


def look(shop: Workshop, last: int, **options: object) -> Findings:
    return find_waste(Store(shop.root), [shop.plan()], last, **options)


def partitions(findings: Findings) -> list[str]:
    return sorted(item.name for item in findings.items if item.kind == "partition")


def files(shop: Workshop) -> set[Path]:
    return {path for path in shop.root.rglob("*") if "catalog" not in path.parts}


def of_style(style: str) -> list[str]:
    blocks = [f"{stage}/{style}/{block:04d}" for stage in ("edit", "score", "teach") for block in range(2)]
    return [*blocks, f"prompts/{style}", f"select/{style}"]


JOINED = ["dataset/all", "distill/all", "evaluate/all"]


def test_nothing_goes_while_a_kept_snapshot_refers_to_it(shop: Workshop) -> None:
    found = look(shop, last=3)
    assert (found.items, len(found.snapshots)) == ([], 3)


def test_a_removed_style_goes_with_the_last_snapshot_that_held_it(shop: Workshop) -> None:
    found = look(shop, last=2)
    assert partitions(found) == sorted([*of_style("zombie"), *JOINED])
    assert [item.kind for item in found.items if item.kind != "partition"] == ["dataset"]
    before = files(shop)
    assert files(shop) == before, "looking deletes nothing"
    gone = remove_waste(Store(shop.root), found.items)
    assert len(gone) == len(found.items)
    assert {path for path in files(shop) if "zombie" in path.parts and path.name == "record.json"} == set()
    assert len(list_snapshots(shop.root)) == 2
    assert verify(shop.root).damaged == []
    shop.overrides = []
    assert shop.build() == [], "the snapshot before the last is still whole"


def test_with_one_snapshot_the_earlier_edits_go_and_the_latest_runs_nothing(shop: Workshop) -> None:
    found = look(shop, last=1)
    own = [key for key in of_style("red-hair") if not key.startswith("prompts")]
    assert partitions(found) == sorted([*of_style("zombie"), *own, *JOINED, *JOINED])
    remove_waste(Store(shop.root), found.items)
    assert shop.build() == []
    assert look(shop, last=0).items == [], "the latest is always kept"


def test_a_snapshot_is_kept_by_name_and_by_a_file_in_its_folder(shop: Workshop) -> None:
    first = list_snapshots(shop.root)[0]
    assert [item for item in look(shop, last=2, keep=[first.digest[:10]]).items if item.kind != "unfinished"] == []
    (first.folder / PINNED).touch()
    assert look(shop, last=2).items == []


def test_the_plan_keeps_what_no_snapshot_holds(shop: Workshop) -> None:
    shop.overrides = []
    found = look(shop, last=1)  # the present settings are again those of the second snapshot
    assert partitions(found) == sorted([*of_style("zombie"), *JOINED])


def test_what_was_made_since_the_last_snapshot_is_work_under_way(shop: Workshop) -> None:
    before = partitions(look(shop, last=2))
    given, shop.overrides = shop.overrides, ["edit.steps=9"]
    assert shop.build(until="score")
    shop.overrides = given
    assert partitions(look(shop, last=2)) == before


def test_a_record_that_changed_since_it_was_found_stays(shop: Workshop) -> None:
    found = look(shop, last=2)
    (item,) = [item for item in found.items if item.name == "edit/zombie/0001"]
    os.utime(item.folder / "record.json")
    gone = remove_waste(Store(shop.root), found.items)
    assert item not in gone
    assert (item.folder / "record.json").exists()


@contextmanager
def at_work(shop: Workshop, fingerprint: str) -> Iterator[None]:
    """While another process works on distill/all as this intent makes it."""
    code = (
        "import sys, pathlib\n"
        "from data_catalog.store.stage import Partition\n"
        "from data_catalog.store.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])).lock(Partition('distill'), sys.argv[2]):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(shop.root), fingerprint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "locked\n"
        yield
        process.stdin.close()


def abandoned(shop: Workshop, fingerprint: str = "0123456789abcdef") -> Path:
    folder = Store(shop.root).working(Partition("distill"), fingerprint)
    (folder / "checkpoint.pt").write_bytes(b"half a training")
    return folder


def test_an_abandoned_training_goes(shop: Workshop) -> None:
    folder = abandoned(shop)
    (item,) = look(shop, last=3).items
    assert (item.kind, item.name, item.folder, item.bytes) == ("unfinished", "distill/all", folder, 15)
    remove_waste(Store(shop.root), [item])
    assert not folder.exists()
    assert shop.build() == []


def test_a_training_that_the_next_run_would_take_up_stays(shop: Workshop) -> None:
    shop.overrides = [*shop.overrides, "distill.seed=5"]
    fingerprint = shop.plan().steps["distill/all"].fingerprint
    assert fingerprint is not None
    abandoned(shop, fingerprint)
    assert look(shop, last=3).items == []
    shop.overrides = [*shop.overrides, "edit.steps=8"]  # its fingerprint is not known before the dataset is made
    assert look(shop, last=3).items == []


def test_what_a_live_process_works_on_stays(shop: Workshop) -> None:
    folder = abandoned(shop)
    with at_work(shop, folder.name.removeprefix(".part-")):
        assert all(item.kind != "unfinished" for item in look(shop, last=2).items)
    found = look(shop, last=2)
    assert {item.folder for item in found.items if item.kind == "unfinished"} == {folder}
    (trained,) = [item for item in found.items if (item.kind, item.name) == ("partition", "distill/all")]
    with at_work(shop, trained.folder.name):
        gone = remove_waste(Store(shop.root), found.items)
    assert trained not in gone
    assert (trained.folder / "record.json").exists()
    assert {"edit/zombie/0000", "distill/all"} <= {item.name for item in gone}  # one that nobody works on went
    assert not folder.exists()


def test_the_command_says_what_would_go_and_deletes_only_when_told(shop: Workshop) -> None:
    before = files(shop)
    listed = run_gc(shop, "--json")
    assert (listed["dry_run"], listed["deleted"], files(shop)) == (True, 0, before)
    names = [item["name"] for item in listed["items"] if item["kind"] == "partition"]
    assert sorted(names) == sorted([*of_style("zombie"), *JOINED])
    assert listed["bytes"] == sum(item["bytes"] for item in listed["items"]) > 0
    deleted = run_gc(shop, "--json", "--yes")
    assert (deleted["dry_run"], deleted["deleted"]) == (False, len(listed["items"]))
    assert {path.name for path in before - files(shop)} >= {"record.json", "told.json", "manifest.json"}
    assert run_gc(shop, "--json")["items"] == []


def run_gc(shop: Workshop, *options: str) -> dict[str, Any]:
    environment = {**os.environ, "STILLROOM_DATA": str(shop.root)}
    settings = ["--set", f"prompts.styles_dir={shop.styles}", "--set", "portraits.count=4"]
    command = [sys.executable, "-m", "flows.cli", "gc", "--last", "2", *settings, *options]
    ended = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document
