"""The MLflow database: it follows its data root, and a kill while it is made leaves nothing in the way.

The same is shown of Prefect's database, and of all that a command makes first on an empty root.
"""

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from flows.track.mlflow_database import artifacts_uri, database_path, database_uri, is_finished, open_database
from flows.track.mlflow_runs import Tracker
from tests.worlds.commands import count_tables, kill_when
from tests.worlds.processes import fork, wait, watch_disk

DIGEST = "7" * 64


@pytest.fixture(scope="module", autouse=True)
def own_store() -> Iterator[None]:
    """No other store is named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without a run; making one takes MLflow seconds."""
    root = tmp_path_factory.mktemp("empty")
    open_database(root)
    return database_path(root)


@pytest.fixture
def first(empty: Path, tmp_path: Path) -> Path:
    """A data root with one run in its database, and all kinds of addresses below it."""
    root = tmp_path / "first"
    database_path(root).parent.mkdir(parents=True)
    shutil.copy(empty, database_path(root))
    write_run(root, "old")
    return root


def write_run(root: Path, name: str) -> str:
    """Track a run with an artifact, a dataset, a logged model and a registered one."""
    (root / "datasets" / DIGEST[:16]).mkdir(parents=True, exist_ok=True)
    tracker = Tracker(root, Settings(), "build-dataset")
    tracker.document({"name": name}, "note.json")
    tracker.dataset(f"faces of {name}", DIGEST, root / "datasets" / DIGEST[:16], 3)
    with tracker.stage("draw") as stage_log:
        stage_log.summary({"seconds": 1.0}, [])
    tracker.finish()
    model = tracker.client.create_logged_model(tracker.experiment_id, name, tracker.run_id)
    tracker.client.create_registered_model(name)
    tracker.client.create_model_version(name, model.artifact_location, tracker.run_id)
    return tracker.run_id


def read_note(root: Path, run_id: str, folder: Path) -> str:
    """Download a run's artifact, as the pages and `compare` do."""
    folder.mkdir()
    path = MlflowClient(tracking_uri=open_database(root)).download_artifacts(run_id, "note.json", str(folder))
    note: str = json.loads(Path(path).read_text())["name"]
    return note


def only_run(root: Path, name: str) -> str:
    client = MlflowClient(tracking_uri=database_uri(database_path(root)))
    return str(client.get_model_version(name, "1").run_id)


def rows_naming(root: Path, place: Path) -> list[str]:
    """Lines of the database that name an address."""
    with closing(sqlite3.connect(database_path(root))) as database:
        return [line for line in database.iterdump() if f"{place.as_uri()}/" in line or f"{place}/" in line]


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def dataset_address(root: Path, run_id: str) -> str:
    (given,) = MlflowClient(tracking_uri=open_database(root)).get_run(run_id).inputs.dataset_inputs
    address: str = json.loads(given.dataset.source)["uri"]
    return address


def test_a_moved_root_finds_its_old_runs_and_writes_new_ones_below_itself(first: Path, tmp_path: Path) -> None:
    old = only_run(first, "old")
    assert len(rows_naming(first, first)) >= 6  # of every column that has one
    second = tmp_path / "second"
    first.rename(second)
    assert read_note(second, old, tmp_path / "got") == "old"
    assert dataset_address(second, old) == (second / "datasets" / DIGEST[:16]).as_uri()
    new = write_run(second, "new")
    assert (second / "mlflow" / "artifacts" / new / "artifacts" / "note.json").is_file()
    assert rows_naming(second, first) == []
    assert not first.exists()
    client = MlflowClient(tracking_uri=open_database(second))
    for name in ("old", "new"):
        assert client.get_model_version_download_uri(name, "1").startswith(artifacts_uri(second))


def test_a_copied_root_keeps_apart_from_the_original(first: Path, tmp_path: Path) -> None:
    old, before = only_run(first, "old"), files_below(first)
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    new = write_run(copy, "new")
    note = copy / "mlflow" / "artifacts" / old / "artifacts" / "note.json"
    note.write_text(json.dumps({"name": "changed in the copy"}))
    assert read_note(copy, old, tmp_path / "of-the-copy") == "changed in the copy"
    assert (copy / "mlflow" / "artifacts" / new / "artifacts" / "note.json").is_file()
    assert rows_naming(copy, first) == []
    assert files_below(first) == before
    assert read_note(first, old, tmp_path / "of-the-original") == "old"
    assert dataset_address(first, old) == (first / "datasets" / DIGEST[:16]).as_uri()


def test_a_root_behind_a_link_has_the_addresses_of_the_folder(first: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(first)
    new = write_run(link, "new")
    assert dataset_address(first, new) == (first / "datasets" / DIGEST[:16]).as_uri()
    assert rows_naming(first, link) == []
    moved = tmp_path / "moved"
    first.rename(moved)
    assert dataset_address(moved, new) == (moved / "datasets" / DIGEST[:16]).as_uri()


def test_a_root_of_a_name_with_blanks_and_percent_signs_is_moved_like_any_other(first: Path, tmp_path: Path) -> None:
    old = only_run(first, "old")
    places = [tmp_path / "a 100% ümlaut", tmp_path / "a 100%25 ü? '#&b", tmp_path / "first"]
    here = first
    for number, place in enumerate(places):
        here.rename(place)
        assert read_note(place, old, tmp_path / f"got-{number}") == "old"
        assert dataset_address(place, old) == (place / "datasets" / DIGEST[:16]).as_uri()
        assert rows_naming(place, here) == []
        here = place


def make_as_mlflow_does(path: Path) -> None:
    """Let MLflow make its tables in the file itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    MlflowClient(tracking_uri=database_uri(path)).search_experiments(max_results=1)


@pytest.mark.parametrize("tables", [1, 20, 60])  # of 65
def test_a_database_that_a_killed_process_left_unfinished_is_made_again(
    tmp_path: Path, tables: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = database_path(tmp_path)
    kill_when(lambda: count_tables(path) >= tables, lambda: make_as_mlflow_does(path))
    assert not is_finished(path)
    uri = open_database(tmp_path)
    assert "left unfinished and holds no run" in caplog.text
    assert is_finished(path)
    tracker = Tracker(tmp_path, Settings(), "build-dataset")
    tracker.document({"name": "whole"}, "note.json")
    assert tracker.uri == uri
    assert sorted(file.name for file in path.parent.iterdir()) == ["artifacts", "mlflow.db", "mlflow.lock"]


def test_an_unfinished_database_with_runs_is_not_touched(first: Path) -> None:
    path = database_path(first)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM experiments")
    before = path.read_bytes()
    with pytest.raises(UserError, match="incomplete and holds runs") as caught:
        open_database(first)
    assert str(path) in str(caught.value)
    assert "backup" in str(caught.value)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_not_touched(tmp_path: Path) -> None:
    path = database_path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"SQLite format 4" + bytes(5000))
    with pytest.raises(UserError, match="cannot be read"):
        open_database(tmp_path)
    assert path.read_bytes() == b"SQLite format 4" + bytes(5000)


def test_killed_while_it_makes_the_database_the_next_call_makes_a_whole_one(tmp_path: Path) -> None:
    path = database_path(tmp_path)

    def tables_of_the_half() -> int:
        return max((count_tables(half) for half in path.parent.glob(f".{path.name}.*[0-9a-f]")), default=0)

    def killed_before_the_rename() -> None:
        def hear(line: str) -> None:
            if line.startswith("os.rename"):
                os.kill(os.getpid(), signal.SIGKILL)

        watch_disk(path.parent, hear)
        open_database(tmp_path)

    moments: list[Callable[[], bool]] = [
        lambda: path.with_suffix(".lock").exists(),
        lambda: any(path.parent.glob(f".{path.name}.*")),
        *(lambda tables=tables: tables_of_the_half() >= tables for tables in (1, 30)),  # type: ignore[misc]
    ]
    for moment in moments:
        kill_when(moment, lambda: open_database(tmp_path))
        assert not path.exists()
    assert wait(fork(killed_before_the_rename)) == -signal.SIGKILL
    assert not path.exists()
    tracker = Tracker(tmp_path, Settings(), "build-dataset")
    assert tracker.is_own
    assert is_finished(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["artifacts", "mlflow.db", "mlflow.lock"]
