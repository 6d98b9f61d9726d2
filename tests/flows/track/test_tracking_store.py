"""The MLflow database: it follows its data root, and a kill while it is made leaves nothing in the way.

The same is shown of Prefect's database, and of all that a command makes first on an empty root.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.settings import Settings
from flows.run.processes import wait_until
from flows.run.server import healthy, start_mlflow
from flows.track.mlflow_client import database_uri, sqlite_path
from flows.track.mlflow_database import artifacts_uri, database_path, is_finished, open_database
from flows.track.mlflow_runs import Tracker
from tests.worlds import commands, web
from tests.worlds.checkouts import end_family, make_checkout
from tests.worlds.commands import count_tables, kill_when, until
from tests.worlds.processes import fork, wait, watch_disk

# A service outlives the object that started it, by intention.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

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
    tracker.begin()
    tracker.document({"name": name}, "note.json")
    tracker.dataset(f"faces of {name}", DIGEST, root / "datasets" / DIGEST[:16], 3)
    with tracker.stage("draw") as stage_log:
        stage_log.summary({"seconds": 1.0}, {}, [])
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


def test_a_root_may_have_any_name_and_nothing_is_written_beside_it(tmp_path: Path) -> None:
    root = tmp_path / "q?x=1 feature%2Fx #é [b]"
    run_id = write_run(root, "odd")
    assert read_note(root, run_id, tmp_path / "got") == "odd"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["got", root.name]
    assert database_path(root).is_file()
    assert sqlite_path(database_uri(database_path(root))) == database_path(root)


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
    assert "incomplete and holds no run" in caplog.text
    assert is_finished(path)
    tracker = Tracker(tmp_path, Settings(), "build-dataset")
    tracker.begin()
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
    tracker.begin()
    assert tracker.is_own
    assert is_finished(path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["artifacts", "mlflow.db", "mlflow.lock"]


# ---- the same from outside: real commands on a data root of their own ----


def styles_beside(root: Path, *names: str) -> str:
    """Style files beside a data root. Returns their folder."""
    folder = root.parent / "styles"
    folder.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(PROJECT / "configs" / "styles" / f"{name}.txt", folder)
    return str(folder)


LOAD = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/stillroom-demo/1")
pictures = model.predict(model.input_example)
print(len(pictures), sorted({bytes(picture)[:4] for picture in pictures["image"]}))
"""


def naming(root: Path, place: Path) -> list[str]:
    """Files below a root that name another place."""
    word = str(place).encode()
    return sorted(name for name, content in files_below(root).items() if word in content)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_after_a_move_the_pages_the_models_and_the_commands_work_from_the_new_place(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    small = commands.overrides(prompts__styles_dir=styles_beside(first, "red-hair", "zombie"))
    built, *_, evaluated = [commands.run(first, flow, *small) for flow in ("build", "distill", "evaluate")]
    first.rename(second)

    service = start_mlflow(second)
    try:
        client = MlflowClient(tracking_uri=open_database(second))
        run_id = evaluated["mlflow_run_id"]
        pictures = [each.path for each in client.list_artifacts(run_id, "pictures") if each.path.endswith(".png")]
        wait_until(lambda: answers(f"{service.url}/health"), service, seconds=240)
        got = web.get(f"{service.url}/get-artifact", params={"run_uuid": run_id, "path": pictures[0]})
        assert (got.status_code, got.content[:8]) == (200, b"\x89PNG\r\n\x1a\n")
    finally:
        end_family(service.pid)

    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, open_database(second)],
        cwd=tmp_path,
        env=commands.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    assert "[b'\\x89PNG']" in loaded.stdout

    portrait = next((second / "store" / "portraits").rglob("*.png"))
    out = tmp_path / "edited"
    commands.run(second, "edit", str(portrait), "--prompt", "Make the hair red", "--out", str(out), *small)
    assert (out / "edited.png").is_file()

    again = commands.run(second, "build", *small)
    assert (again["partitions_run"], again["dataset"]) == (0, built["dataset"])
    artifacts = second / "mlflow" / "artifacts" / again["mlflow_run_id"] / "artifacts"
    assert (artifacts / "README.md").is_file()
    assert dataset_address(second, again["mlflow_run_id"]).startswith(f"{second.as_uri()}/")
    assert not first.exists()
    assert rows_naming(second, first) == []
    # A model's own description says where it was written; loading it does not use that.
    assert {Path(name).name for name in naming(second, first)} <= {"MLmodel"}


def test_the_pages_start_no_workers_for_jobs(first: Path) -> None:
    service = start_mlflow(first)
    try:
        wait_until(lambda: answers(f"{service.url}/health"), service, seconds=240)
        family = psutil.Process(service.pid).children(recursive=True)
        assert family
        assert not [child for child in family if any("mlflow.server.jobs" in word for word in child.cmdline())]
    finally:
        end_family(service.pid)


def answers(url: str) -> bool:
    try:
        return web.get(url).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_any_moment_on_an_empty_root_the_same_command_succeeds(tmp_path: Path) -> None:
    small = commands.overrides(prompts__styles_dir=styles_beside(tmp_path / "root", "red-hair"))
    began = time.monotonic()
    dataset = commands.run(tmp_path / "untouched", "build", *small)["dataset"]
    seconds = time.monotonic() - began
    for moment in range(1, 11):
        root = tmp_path / f"root-{moment}"
        process = commands.start(root, "build", "--json", *small)
        time.sleep(seconds * 0.035 * moment)  # 0.5 to 7 s, where a build takes 20
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
        again = commands.run(root, "build", *small)
        assert again["dataset"] == dataset, moment
        client = MlflowClient(tracking_uri=open_database(root))
        ids = [each.experiment_id for each in client.search_experiments()]
        assert list(client.search_runs(ids, "attributes.status = 'RUNNING'")) == [], moment
        shutil.rmtree(root)


START = """
from data_catalog.config.places import data_root
from flows.run.server import start_server
print(start_server(data_root()))
"""


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_prefects_database_is_made_again_when_the_first_start_was_killed(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "A")

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", START],
            cwd=checkout.path,
            env=checkout.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    database = checkout.root / "prefect" / "prefect.db"
    try:
        for tables, only_the_server in ((0, False), (1, False), (12, False), (25, False), (12, True)):
            shutil.rmtree(checkout.root, ignore_errors=True)
            process = start()
            until(lambda least=tables: database.exists() and count_tables(database) >= least, "the tables")  # type: ignore[misc]
            service = checkout.service("server")
            assert service is not None
            if not only_the_server:
                process.kill()
                process.communicate()
            end_family(service.pid)
            again = process if only_the_server else start()
            said = again.communicate(timeout=600)[0]
            assert again.returncode == 0, (tables, said, checkout.logs())
            assert healthy(said.strip().splitlines()[-1]), said
            with closing(sqlite3.connect(database)) as opened:
                assert opened.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)
            checkout.end()
    finally:
        checkout.end()
