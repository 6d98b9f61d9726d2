"""A student in use keeps what it learned from; `gc` says what stays and why, and asks before it deletes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from data_catalog.care.gc import Findings, find_waste, remove_waste
from data_catalog.care.verify import verify
from data_catalog.config.places import PROJECT
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.names import give_name, note_export
from data_catalog.products.snapshot import list_snapshots, publish
from data_catalog.products.students import list_students
from data_catalog.store.catalog import Catalog
from data_catalog.store.store import Store
from flows.track.model_versions import TAG
from tests.flows.ask.test_shelf import store_partition
from tests.worlds.declared import Workshop
from tests.worlds.terminal import pieces

REPORT = b"<title>the report</title>"
TRAINED = {0: "evaluate", 4: "evaluate"}  # up to which stage each of the five is made


def publish_with_report(shop: Workshop) -> None:
    entry = shop.plan().steps[DATASET].entry
    assert entry is not None
    publish(shop.root, shop.plan().catalog.folder(entry), {"report.html": REPORT})


def make_five(folder: Path, trained: dict[int, str]) -> Workshop:
    """Five datasets, each with other edits."""
    shop = Workshop(folder, styles=("red-hair",))
    for number in range(5):
        shop.overrides = [f"edit.steps={number + 10}"]
        shop.build(until=trained.get(number, "dataset"))
        publish_with_report(shop)
    for age, snapshot in enumerate(sort_by_steps(shop)):
        os.utime(snapshot / "manifest.json", (1_800_000_000 + age,) * 2)
    return shop


def sort_by_steps(shop: Workshop) -> list[Path]:
    """Folders of the snapshots in the order of their making, whatever the clock's ticks."""
    catalog = Catalog(Store(shop.root))
    made = sorted(catalog.history(DATASET), key=lambda entry: entry.record_mtime_ns)
    digests = [json.loads((catalog.folder(entry) / "manifest.json").read_text())["partitions"] for entry in made]
    by_parts = {json.dumps(each.manifest["partitions"]): each.folder for each in list_snapshots(shop.root)}
    return [by_parts[json.dumps(parts)] for parts in digests]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The first and the last of the five datasets have an evaluated student."""
    return make_five(tmp_path_factory.mktemp("built"), TRAINED)


@pytest.fixture
def shop(built: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    copy = Workshop(tmp_path)
    shutil.copytree(built.root, copy.root)
    copy.styles, copy.overrides = built.styles, built.overrides
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copy


@pytest.fixture
def old(shop: Workshop) -> str:
    """Digest of the first student, which the newest dataset's has followed."""
    return list_students(Catalog(Store(shop.root)))[1].digest


def look(shop: Workshop, last: int = 3, **options: Any) -> Findings:
    return find_waste(Store(shop.root), [shop.plan()], last, **options)


def students(shop: Workshop) -> set[str]:
    return {entry.digest for entry in list_students(Catalog(Store(shop.root)))}


def first_and_second(shop: Workshop) -> tuple[Path, Path]:
    """Folders of the two oldest snapshots."""
    first, second = (each.folder for each in list_snapshots(shop.root)[:2])
    return first, second


def command_of_gc(shop: Workshop, *options: str) -> list[str]:
    settings = ["--set", f"prompts.styles_dir={shop.styles}", "--set", "portraits.count=4"]
    return [sys.executable, "-m", "flows.cli", "gc", *settings, *options]


def environment_of(shop: Workshop) -> dict[str, str]:
    return {**os.environ, "STILLROOM_DATA": str(shop.root), "NO_COLOR": "1", "COLUMNS": "160"}


def run_gc(shop: Workshop, *options: str) -> str:
    command, environment = command_of_gc(shop, *options), environment_of(shop)
    ended = subprocess.run(
        command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_five_builds_do_not_cost_the_student_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shop = make_five(tmp_path, {0: "evaluate"})
    first, second = first_and_second(shop)
    before = students(shop)
    told = run_gc(shop, "--yes")
    assert f"dataset {first.name} stays: its student {next(iter(before))[:16]} is the newest" in told
    assert "may go" not in told
    assert re.search(r"deleted \d+ folders with \d+\.\d MB", told)
    assert (first / "report.html").read_bytes() == REPORT
    assert students(shop) == before
    assert not second.exists()
    assert verify(shop.root).damaged == []
    shop.overrides = ["edit.steps=10"]
    assert shop.build() == [], "dataset, student and evaluation of the first are whole"


def test_a_student_that_nothing_uses_goes_with_its_dataset(shop: Workshop, old: str) -> None:
    first, second = first_and_second(shop)
    found = look(shop)
    assert {item.folder for item in found.items if item.kind == "dataset"} == {first, second}
    remove_waste(Store(shop.root), found.items)
    assert old not in students(shop)
    assert verify(shop.root).damaged == []


def name_it(shop: Workshop, digest: str) -> None:
    give_name(shop.root, "champion", digest)


def export_it(shop: Workshop, digest: str) -> None:
    note_export(shop.root, digest, Path("/elsewhere/student"))


def adapt_it(shop: Workshop, digest: str) -> None:
    store_partition(shop.root, "adapt/bald", {STUDENT: digest}, adapted={"style": "bald", "student": digest})


def register_it(shop: Workshop, digest: str) -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    client.create_registered_model("stillroom-demo")
    for _ in range(2):
        client.create_model_version("stillroom-demo", source="/nowhere", tags={TAG: digest})


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (name_it, "is named champion"),
        (export_it, "was exported to /elsewhere/student"),
        (adapt_it, "was adapted to bald"),
        (register_it, "is registered as stillroom-demo version 2"),
    ],
)
def test_each_use_of_a_student_keeps_what_it_learned_from(
    use: Callable[[Workshop, str], None],
    reason: str,
    shop: Workshop,
    old: str,
    mlflow_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if use is register_it:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    use(shop, old)
    os.utime(shop.root / "datasets" / "latest")  # whatever was adapted is no work under way
    first, second = first_and_second(shop)
    digest = list_snapshots(shop.root)[0].digest
    document = json.loads(run_gc(shop, "--yes", "--json"))
    assert document["kept"]["why"][digest] == [f"its student {old[:16]} {reason}"]
    assert list(document["kept"]["why"]) == document["kept"]["datasets"]
    assert len(document["kept"]["datasets"]) == 4
    assert ((first / "report.html").read_bytes(), second.exists()) == (REPORT, False)
    assert old in students(shop)
    assert verify(shop.root).damaged == []
    shop.overrides = ["edit.steps=10"]
    assert shop.build() == [], "dataset, student and evaluation of the first are whole"


def test_adapted_styles_of_a_student_in_use_stay(shop: Workshop, old: str) -> None:
    adapt_it(shop, old)
    name_it(shop, old)
    remove_waste(Store(shop.root), look(shop, last=1).items)
    assert Catalog(Store(shop.root)).history("adapt/bald")


def test_a_version_that_was_deleted_in_mlflow_keeps_nothing(
    shop: Workshop, old: str, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    register_it(shop, old)
    for version in "12":
        MlflowClient(mlflow_uri).delete_model_version("stillroom-demo", version)
    assert len(json.loads(run_gc(shop, "--json"))["kept"]["datasets"]) == 3


def test_a_snapshot_whose_partition_stays_is_not_taken_from_it(shop: Workshop) -> None:
    shop.overrides = ["edit.steps=11"]  # the second, which no student learned from
    found = look(shop)
    second = list_snapshots(shop.root)[1]
    assert found.why[second.digest] == ["the plan of a profile counts on it"]
    assert second.folder not in {item.folder for item in found.items}
    shop.overrides = ["edit.steps=14"]
    (kept,) = [entry for entry in Catalog(Store(shop.root)).history(DATASET) if entry.digest == partition_of(shop, 1)]
    store_partition(shop.root, "claims/all", {DATASET: kept.digest})
    os.utime(shop.root / "datasets" / "latest")
    (reason,) = look(shop).why[second.digest]
    assert re.fullmatch(r"claims/all [0-9a-f]{16}, which was made from it, stays", reason)


def partition_of(shop: Workshop, number: int) -> str:
    """Digest of the partition behind a snapshot, counted from the oldest."""
    made = sorted(Catalog(Store(shop.root)).history(DATASET), key=lambda entry: entry.record_mtime_ns)
    return made[number].digest


def test_every_reason_of_a_snapshot_is_told(shop: Workshop, old: str) -> None:
    name_it(shop, old)
    first, second = list_snapshots(shop.root)[:2]
    (second.folder / "keep").touch()
    lines = run_gc(shop, "--keep", "champion").splitlines()
    told = {line.split()[1]: line.partition(" stays: ")[2] for line in lines if " stays: " in line}
    latest = list_snapshots(shop.root)[-1].folder.name
    assert told[first.folder.name] == f"--keep champion; its student {old[:16]} is named champion"
    assert told[second.folder.name] == "its folder has a file 'keep'"
    assert told[latest].startswith("it is one of the last 3; it is datasets/latest; its student ")
    assert len(told) == 5


def test_without_a_terminal_nothing_is_deleted_and_nothing_asked(shop: Workshop) -> None:
    told = run_gc(shop)
    assert re.search(r"\d+ folders with \d+\.\d MB may go; delete them with --yes", told)
    assert "[y/N]" not in told
    assert len(list_snapshots(shop.root)) == 5


def test_what_was_left_is_told_and_what_went_marked(shop: Workshop) -> None:
    first, second = first_and_second(shop)
    document = json.loads(run_gc(shop, "--yes", "--json"))
    assert {item["folder"] for item in document["items"] if item["deleted"]} >= {str(first), str(second)}
    assert document["deleted"] == len(document["items"])
    assert run_gc(shop, "--yes").splitlines()[-1] == "nothing to delete"


def at_a_terminal(shop: Workshop, answer: str, meanwhile: Callable[[], object] = lambda: None) -> str:
    """Return the terminal's contents for a user who answers the question of `gc`."""
    ours, theirs = os.openpty()
    command, environment = command_of_gc(shop), environment_of(shop)
    with subprocess.Popen(command, env=environment, cwd=PROJECT, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen, asked = b"", False
        for piece in pieces(ours):
            seen += piece
            if not asked and seen.endswith(b"]: "):
                asked = True
                meanwhile()
                os.write(ours, answer.encode())
        assert asked, f"it ended without a question: {seen.decode()}"
    assert process.returncode == 0
    return seen.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_on_a_terminal_it_asks_and_deletes_nothing_unless_told(shop: Workshop, answer: str) -> None:
    seen = at_a_terminal(shop, answer)
    assert re.search(r"Delete \d+ folders with \d+\.\d MB\? \[y/N\]", seen)
    assert seen.endswith("nothing was deleted\n")
    assert len(list_snapshots(shop.root)) == 5


def test_on_a_terminal_a_yes_deletes_what_was_shown(shop: Workshop) -> None:
    first, second = first_and_second(shop)
    seen = at_a_terminal(shop, "y\n")
    assert re.search(r"\ndeleted \d+ folders with \d+\.\d MB\n$", seen)
    assert "may go" not in seen
    assert not first.exists()
    assert not second.exists()


def test_what_comes_into_use_while_the_question_waits_stays(shop: Workshop, old: str) -> None:
    first, second = first_and_second(shop)
    at_a_terminal(shop, "y\n", meanwhile=lambda: name_it(shop, old))
    assert (first.exists(), second.exists()) == (True, False)
    assert old in students(shop)
