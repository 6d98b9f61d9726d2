"""Services that are dead, wrong or lost: one message in time that names the variable, and no work is lost."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.workspace import Workspace
from flows.run import active, server
from flows.run.lifecycle import tracked
from flows.track.addresses import check_answers, check_prefect, shown, without_password
from flows.track.mlflow_client import database_uri, sqlite_path
from tasks.processes import free_port
from tests.worlds import commands

DEAD = "http://127.0.0.1:9"
SOON = 60  # seconds at most on a busy machine; the libraries themselves try for minutes
SECRET = "gehe/im@9?"


class Answers(BaseHTTPRequestHandler):
    """Answer every request as the server's `says` has it: status, headers, body."""

    def do_GET(self) -> None:
        status, kind, body = self.server.says  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *given: object) -> None:
        """Stay quiet."""


@pytest.fixture
def web() -> Iterator[Any]:
    """A server on loopback; set `says`."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    made.says = (200, "text/html", b"<html>login</html>")  # type: ignore[attr-defined]
    Thread(target=made.serve_forever, daemon=True).start()
    yield SimpleNamespace(server=made, url=f"http://127.0.0.1:{made.server_address[1]}")
    made.shutdown()
    made.server_close()


def build(root: Path, **given: str) -> tuple[int, str]:
    """Run `stillroom build` on a job that would take minutes; return its status and its words."""
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "build", "--set", "portraits.count=2"],
        cwd=PROJECT,
        env=commands.environment(STILLROOM_DATA=str(root), **given),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "PREFECT_API_URL"])
def test_a_dead_address_is_one_message_that_names_the_variable_before_any_work(tmp_path: Path, name: str) -> None:
    status, said = build(tmp_path / "data", **{name: f"http://me:{quote(SECRET, safe='')}@127.0.0.1:9/api"})
    assert status == 1
    assert said.startswith(f"error: no server answers at the address in {name}\n")
    assert f"unset {name}" in said
    assert "Connection refused" in said
    assert "Traceback" not in said
    assert "gehe" not in said
    assert not (tmp_path / "data" / "store").exists()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:4200/api", "http://", "http://[::1", "http://127.0.0.1:99999", "ftp://127.0.0.1/"),
        *("http://no\x01host/", "http://no-such-host.invalid:4200/api", "https://127.0.0.1:9/api"),
    ],
)
def test_what_is_no_address_is_one_message(address: str) -> None:
    for check in (check_prefect, lambda given: check_answers("PREFECT_API_URL", given, "unset PREFECT_API_URL")):
        if check is not check_prefect and not address.startswith("http"):
            continue  # MLflow has stores of many kinds
        began = time.monotonic()
        with pytest.raises(UserError, match="PREFECT_API_URL") as caught:
            check(address)
        assert time.monotonic() - began < SOON
        assert "unset PREFECT_API_URL" in str(caught.value)
        assert str(caught.value).isprintable() or "\n" in str(caught.value)


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ((200, "text/html", b"<html>login</html>"), "<html>login</html>"),
        ((404, "text/plain", b"no"), "404 Not Found"),
        ((401, "text/plain", b"no"), "401 Unauthorized"),
        ((200, "text/plain", b"OK"), "OK"),  # MLflow's own
        ((503, "text/plain", b"busy"), "503"),
        ((200, "application/json", b"true"), None),
    ],
)
def test_only_prefects_answer_is_taken_for_prefect(
    web: Any, monkeypatch: pytest.MonkeyPatch, says: tuple[int, str, bytes], found: str | None
) -> None:
    web.server.says = says
    monkeypatch.setenv("PREFECT_API_URL", f"{web.url}/api")
    monkeypatch.setenv("HTTP_PROXY", DEAD)  # a server of this machine is reached directly
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    if found is None:
        assert server.users_api() == f"{web.url}/api"
        return
    with pytest.raises(UserError, match="PREFECT_API_URL is not the API of a Prefect server") as caught:
        server.users_api()
    assert found in str(caught.value)


def test_a_project_that_is_only_read_serves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(server, "PREFECT_TOML", tmp_path / "file" / "prefect.toml")
    server.write_prefect_toml("http://127.0.0.1:4200/api")
    assert "set PREFECT_API_URL=http://127.0.0.1:4200/api" in caplog.text
    monkeypatch.setattr(server, "PREFECT_TOML", tmp_path / "prefect.toml")
    server.write_prefect_toml("http://127.0.0.1:4200/api")
    assert 'url = "http://127.0.0.1:4200/api"' in (tmp_path / "prefect.toml").read_text()


def test_https_to_a_server_of_http_says_so(web: Any) -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI") as caught:
        check_answers("MLFLOW_TRACKING_URI", web.url.replace("http", "https"), "unset MLFLOW_TRACKING_URI")
    assert "http://" in str(caught.value)


def test_a_silent_server_is_waited_for_only_seconds() -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="timed out"):
        check_answers("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}", "unset it")
    assert time.monotonic() - began < SOON


def test_no_form_of_an_address_shows_its_password() -> None:
    for address in (f"http://me:{SECRET}@host:1/api?token=gehe", f"me:{SECRET}@host", f"http://[me:{SECRET}@x"):
        for said in (shown(address), without_password(f"cannot reach {address} as me:{SECRET}", address)):
            assert "gehe" not in said
            assert "im@9" not in said
    assert shown("sqlite:////home/a@b/x.db") == "sqlite:////home/a@b/x.db"


def test_a_password_goes_into_the_variable_and_not_into_the_settings() -> None:
    with pytest.raises(UserError, match=r"run.mlflow_uri") as caught:
        load_settings("demo", [f"run.mlflow_uri=http://me:{SECRET}@host:5000"])
    assert SECRET not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


# ---- MLflow's refusals ----


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Begin a run in the store at an address; return the message."""

    def begin(address: str) -> str:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        began = time.monotonic()
        with pytest.raises(UserError) as caught, tracked(Workspace(Settings(), tmp_path), "build-dataset"):
            pass
        assert time.monotonic() - began < SOON
        assert active.left_runs(tmp_path) == []
        assert list((tmp_path / active.FOLDER).glob("*")) == []
        return str(caught.value)

    return begin


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("file:///tmp/some/mlruns", "MLFLOW_TRACKING_URI=sqlite:////PATH/mlflow.db"),
        ("redis://host/1", "sqlite:////PATH/mlflow.db"),
        ("postgresql://me:gehe@/db", "pip install 'psycopg"),
        ("mysql+pymysql://me:gehe@/db", "pip install 'pymysql'"),
        ("postgresql://me:gehe@127.0.0.1:9/db", "unset MLFLOW_TRACKING_URI"),
        ("sqlite:////proc/none/mlflow.db", "ls -ld '/proc/none/mlflow.db'"),
    ],
)
def test_a_store_of_another_kind_is_one_message_with_the_way_out(refused: Any, address: str, hint: str) -> None:
    said = refused(address)
    assert "MLFLOW_TRACKING_URI" in said
    assert hint in said
    assert "gehe" not in said


def test_a_page_that_is_no_mlflow_is_one_message(refused: Any, web: Any) -> None:
    assert "MLflow refuses the store in MLFLOW_TRACKING_URI" in refused(web.url)


@pytest.fixture
def database(tmp_path: Path, mlflow_uri: str) -> Path:
    """A copy of a whole store of the tests'."""
    MlflowClient(tracking_uri=mlflow_uri).search_experiments(max_results=1)
    path = tmp_path / "users.db"
    source = sqlite_path(mlflow_uri)
    assert source is not None
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(path)) as new:
        old.backup(new)
    return path


def test_a_deleted_experiment_a_schema_of_another_version_and_damage_say_how_to_mend_them(
    refused: Any, database: Path
) -> None:
    uri = database_uri(database)
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name("stillroom/demo")
    number = found.experiment_id if found else client.create_experiment("stillroom/demo")
    client.delete_experiment(number)
    said = refused(uri)
    assert "the experiment stillroom/demo was deleted" in said
    assert f"mlflow experiments restore --experiment-id {number}" in said

    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
        connection.commit()
    said = refused(f"{uri}?timeout=9")  # MLflow keeps a connection to each address
    assert "schema" in said
    assert f"mlflow db upgrade '{uri}" in said

    damaged = database.with_name("damaged.db")
    damaged.write_bytes(b"no database" * 500)
    assert "file is not a database" in refused(database_uri(damaged))


# ---- lost in the middle ----


class Server:
    """MLflow's own server, which a test may kill and start again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--workers", "1", "--backend-store-uri", "sqlite:///x.db", "--artifacts-destination", "files"],
            cwd=self.folder,
            env=commands.environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        commands.until(self.answers, "MLflow's server")

    def answers(self) -> bool:
        try:
            check_answers("it", f"{self.url}/health", "")
        except UserError:
            return False
        return True

    def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def tracking(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    yield made
    made.kill()


def test_mlflow_lost_in_the_middle_stops_no_work_and_is_told_of_the_end_later(
    tmp_path: Path, tracking: Server, caplog: pytest.LogCaptureFixture
) -> None:
    tracking.start()
    root, settings, done = tmp_path / "data", load_settings("demo", [f"run.mlflow_uri={tracking.url}"]), []
    with tracked(Workspace(settings, root), "build-dataset") as (tracker, note):
        run_id = tracker.run_id
        with tracker.stage("portraits"):
            note.at("portraits")
        tracking.kill()
        began = time.monotonic()
        for stage in ("edit", "teach"):
            with tracker.stage(stage) as log:
                for number in range(20):
                    tracker.metrics(log.run_id, {"seconds": float(number)})
                done.append(stage)
        tracker.document({}, "x.json")
    assert time.monotonic() - began < SOON
    assert done == ["edit", "teach"]
    assert caplog.text.count("MLflow is lost; the work goes on") == 1
    said = caplog.text[caplog.text.index("MLflow was lost during the run") :]
    assert "2 stages, 40 metrics, 3 ends, 1 documents" in said
    assert "hint" in said
    assert "run.mlflow_uri" in said

    tracking.start()
    assert MlflowClient(tracking_uri=tracking.url).get_run(run_id).info.status == "RUNNING"
    ((_, left),) = active.left_runs(root)
    assert (left.ended, left.mlflow_status) == ("completed", "FINISHED")
    with tracked(Workspace(settings, root), "distill"):
        assert MlflowClient(tracking_uri=tracking.url).get_run(run_id).info.status == "FINISHED"
    assert active.left_runs(root) == []
