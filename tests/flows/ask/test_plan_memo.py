"""The remembered plan is shown while nothing has changed, and never after a change."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tasks.stages
from benchmarks.instant_stages import STAGES
from benchmarks.large import fill_store
from data_catalog.config.places import PROJECT
from data_catalog.plan.source import PACKAGES
from flows.ask import memo as plan_memo
from flows.ask.memo import MEMO, recall, remember
from flows.ask.plan import describe_plan

# The folder of styles is below the current folder, and in the dataset's recipe under this name.
SETTINGS = {"portraits.count": 2, "portraits.block_size": 1, "prompts.styles_dir": "styles"}
WATCHED = (
    "tasks/edit.py",
    "data_catalog/plan/plan.py",
    "configs/profiles/demo.yaml",
    "models/weights/clip.safetensors",
)
OVERRIDES = [f"{name}={value}" for name, value in SETTINGS.items()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which every instant partition is made, and its two style files."""
    root = tmp_path_factory.mktemp("made")
    (root / "styles").mkdir()
    for style in ("red-hair", "zombie"):
        shutil.copy(PROJECT / "configs" / "styles" / f"{style}.txt", root / "styles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.stages, "STAGES", STAGES)
        patch.chdir(root)
        fill_store(root / "data", SETTINGS)
    return root


@pytest.fixture
def overrides(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A copy of it in `tmp_path`, remembered; the settings it was made with."""
    monkeypatch.setattr(tasks.stages, "STAGES", STAGES)
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    for name in WATCHED:  # stands in for the project, which somebody may be editing
        (tmp_path / "project" / name).parent.mkdir(parents=True)
        (tmp_path / "project" / name).write_text("as it is\n")
    monkeypatch.setattr(plan_memo, "PROJECT", tmp_path / "project")
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    remember("demo", OVERRIDES)
    return OVERRIDES


def test_the_remembered_plan_is_the_plan(overrides: list[str]) -> None:
    remembered, planned = recall("demo", overrides), describe_plan("demo", overrides)
    assert remembered is not None
    assert {**remembered, "seconds": 0} == {**planned, "seconds": 0}
    assert {row["stage"]: row["cached"] for row in remembered["stages"]}["teach"] == 4


def some_file(root: Path, pattern: str) -> Path:
    return sorted((root / "data" / "store").glob(pattern))[0]


def flip(path: Path) -> None:
    """Change a byte, and keep the mtime."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], None]] = {
    "a style dropped in": lambda root: (root / "styles" / "neon.txt").write_text("neon"),
    "a style edited": lambda root: (root / "styles" / "zombie.txt").write_text("Make it a zombie"),
    "a style removed": lambda root: (root / "styles" / "zombie.txt").unlink(),
    "a byte flipped": lambda root: flip(some_file(root, "teach/zombie/0001/*/made.txt")),
    "a file deleted": lambda root: some_file(root, "edit/zombie/0001/*/made.txt").unlink(),
    "a file truncated": lambda root: some_file(root, "edit/zombie/0000/*/made.txt").write_text(""),
    "a partition deleted": lambda root: shutil.rmtree(some_file(root, "score/zombie/0000")),
    "a record rewritten": lambda root: flip(some_file(root, "select/zombie/*/record.json")),
    "the index lost": lambda root: (root / "data" / "catalog" / "records.parquet").unlink(),
    "damage found": lambda root: (root / "data" / "catalog" / "damaged.json").write_text("{}"),
    "something new made": lambda root: (root / "data" / "store" / "distill" / "all").mkdir(parents=True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_nothing_is_remembered(change: str, overrides: list[str], tmp_path: Path) -> None:
    assert recall("demo", overrides) is not None
    CHANGES[change](tmp_path)
    assert recall("demo", overrides) is None


@pytest.mark.parametrize("name", WATCHED)
def test_changed_code_configs_or_weights_are_noticed(name: str, overrides: list[str], tmp_path: Path) -> None:
    assert recall("demo", overrides) is not None
    with (tmp_path / "project" / name).open("a") as file:
        file.write("changed\n")
    assert recall("demo", overrides) is None


def test_every_package_that_a_stage_may_import_is_watched() -> None:
    assert set(PACKAGES) | {"configs"} <= set(plan_memo.CODE)


def test_other_settings_are_another_question(overrides: list[str]) -> None:
    assert recall("demo", [*overrides, "edit.steps=3"]) is None
    assert recall("paper", overrides) is None


def test_a_broken_memory_is_none(overrides: list[str], tmp_path: Path) -> None:
    for text in ("", "[]", json.dumps({"format": 1})):
        (tmp_path / "data" / MEMO).write_text(text)
        assert recall("demo", overrides) is None


def test_recalling_loads_no_library_of_arrays() -> None:
    loaded = "{'numpy', 'pyarrow', 'pydantic', 'torch'} & set(sys.modules)"
    code = f"import sys, flows.cli, flows.ask.memo; print({loaded})"
    shown = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
