"""Datasets and students without a name are those that the given settings made, whatever else was made since."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.profiles import load_settings
from data_catalog.products.snapshot import publish, snapshot_digest, write_snapshot_files
from data_catalog.store.catalog import Catalog
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from data_catalog.workspace import Workspace
from flows.run.products import find_dataset, find_student
from tasks.datasets.made import dataset_of, dataset_settings, is_own, student_of, student_settings


def store_made(root: Path, key: str, settings: dict[str, Any], inputs: dict[str, str], day: int) -> Record:
    """A partition as its stage leaves it, made on a day of November."""
    store, partition = Store(root), Partition.parse(key)
    made = {"settings": settings, "inputs": inputs, "day": day}
    folder = store.begin(partition, digest_json(made))
    write_snapshot_files(folder, pa.table({"key": [f"s{day}"]}), {"samples": 1})
    record = Record(
        partition=key,
        stage=partition.stage,
        version=1,
        fingerprint=digest_json(made),
        fingerprint_inputs=made,
        digest="",
        files={},
        created=f"2026-11-{day:02d}T12:00:00+00:00",
    )
    return store.commit(folder, record)


def make(root: Path, day: int, *overrides: str, profile: str = "demo") -> tuple[Record, Record]:
    """A dataset and a student of these settings."""
    settings = load_settings(profile, list(overrides))
    dataset = store_made(root, "dataset/all", dataset_settings(settings), {}, day)
    chosen = student_settings(settings)["distill"]
    return dataset, store_made(root, "distill/all", chosen, {"dataset/all": dataset.digest}, day)


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    return Catalog(Store(tmp_path))


def test_an_experiment_since_then_is_not_taken(tmp_path: Path, catalog: Catalog) -> None:
    dataset, student = make(tmp_path, 1)
    make(tmp_path, 2, "edit.steps=3")
    other, smoke = make(tmp_path, 3, "distill.iterations=120")
    settings = load_settings("demo")
    # Two equal recipes: the newest dataset counts, and the student that learned by these settings from one of them.
    assert dataset_of(catalog, settings).digest == other.digest
    assert student_of(catalog, settings).digest == student.digest
    assert student_of(catalog, load_settings("demo", ["distill.iterations=120"])).digest == smoke.digest
    workspace = Workspace(settings, tmp_path)
    assert find_student(None, workspace) == {"distill/all": student.digest, "dataset/all": dataset.digest}
    assert find_dataset(None, workspace) == {"dataset/all": other.digest}


def test_of_the_same_settings_the_newest_is_taken(tmp_path: Path, catalog: Catalog) -> None:
    make(tmp_path, 1)
    newest = make(tmp_path, 2)[1]
    assert student_of(catalog, load_settings("demo")).digest == newest.digest


def test_how_the_work_is_carried_out_makes_no_other_dataset(tmp_path: Path, catalog: Catalog) -> None:
    student = make(tmp_path, 1)[1]
    settings = load_settings("demo", ["run.workers=1", "edit.batch_size=2", "evaluate.bootstrap=200"])
    assert student_of(catalog, settings).digest == student.digest


def test_without_one_of_these_settings_the_nearest_is_named_with_its_difference(
    tmp_path: Path, catalog: Catalog
) -> None:
    make(tmp_path, 1, "edit.steps=3", "select.min_yield=0", "distill.iterations=120")
    near, student = make(tmp_path, 2, "edit.steps=7")
    with pytest.raises(UserError, match="there is no dataset of these settings yet") as raised:
        dataset_of(catalog, load_settings("demo"))
    here = load_settings("demo").edit.steps
    assert raised.value.fields["differs"] == f"edit.steps: 7 there, {here} here"
    digest = snapshot_digest(Store(tmp_path).folder_of(near))
    assert digest[:8] in str(raised.value.hint)
    with pytest.raises(UserError, match="there is no student of these settings yet") as raised:
        student_of(catalog, load_settings("demo"))
    assert raised.value.fields["nearest"].startswith(student.digest[:16])


def test_a_student_of_another_profile_is_not_taken(tmp_path: Path, catalog: Catalog) -> None:
    make(tmp_path, 1, profile="paper")
    with pytest.raises(UserError, match="there is no student of these settings yet") as raised:
        student_of(catalog, load_settings("demo"))
    assert "paper there, demo here" in raised.value.fields["differs"]


def test_with_nothing_made_it_says_what_to_run(catalog: Catalog) -> None:
    with pytest.raises(UserError, match="there is no student yet") as raised:
        student_of(catalog, load_settings("demo"))
    assert raised.value.hint == "stillroom distill"


def test_latest_is_the_newest_of_the_profiles_own_settings(tmp_path: Path) -> None:
    assert is_own(load_settings("demo"))
    assert is_own(load_settings("demo", ["run.workers=1", "distill.iterations=3"]))  # the same dataset
    assert not is_own(load_settings("demo", ["edit.steps=3"]))
    source = tmp_path / "source"
    source.mkdir()
    write_snapshot_files(source, pa.table({"key": ["a"]}), {"samples": 1})
    first = publish(tmp_path, source)
    write_snapshot_files(source, pa.table({"key": ["b"]}), {"samples": 1})
    publish(tmp_path, source, as_latest=False)
    assert (tmp_path / "datasets" / "latest").read_text().strip() == first.digest


def test_the_command_line_refuses_what_other_settings_made(tmp_path: Path) -> None:
    make(tmp_path, 1, "edit.steps=3")
    for command in (["distill"], ["edit", __file__, "--prompt", "as a zombie"]):
        ended = subprocess.run(
            [sys.executable, "-m", "flows.cli", *command],
            env={"STILLROOM_DATA": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1, command
        assert "of these settings yet" in ended.stderr, (command, ended.stderr[-800:])
        assert "edit.steps: 3 there" in ended.stderr


def test_status_names_the_dataset_and_student_of_the_settings(tmp_path: Path, catalog: Catalog) -> None:
    from flows.care.status import describe_status

    dataset, student = make(tmp_path, 1)
    make(tmp_path, 2, "edit.steps=3")
    document = json.loads(json.dumps(describe_status(Workspace.open())))
    assert document["student"] == student.digest
    assert document["dataset"] == snapshot_digest(Store(tmp_path).folder_of(dataset))
