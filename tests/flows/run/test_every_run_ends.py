"""No process of a run stays, whatever ends it, and every record says how it ended, at the latest after the next start.

The records: MLflow's run and its child runs, Prefect's flow run, the list of last runs, the notes of runs in work.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from flows.lab.pretrain_embedded import _one_thread_processes, killed_on_error
from flows.run import active
from flows.run.history import last_run
from flows.run.lifecycle import end_left_runs, tracked
from tasks.progress import report
from tasks.training.processes import train_together
from tests.worlds.commands import until
from tests.worlds.processes import fork, wait

# A service outlives the object that started it, by intention.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def statuses(uri: str, run_id: str) -> dict[str, str]:
    """MLflow's status of a run and its child runs, by name; the run itself under ``."""
    client = MlflowClient(tracking_uri=uri)
    parent = client.get_run(run_id)
    below = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{run_id}'")
    return {"": parent.info.status} | {run.data.tags["stillroom.stage"]: run.info.status for run in below}


def processes_of(root: Path) -> list[psutil.Process]:
    """Living processes that work on a data root, by their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mine = process.environ().get("STILLROOM_DATA") == str(root) and process.pid != os.getpid()
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def living_children(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def notes(root: Path) -> list[Path]:
    """Everything in the folder of runs in work."""
    return sorted((root / active.FOLDER).iterdir()) if (root / active.FOLDER).exists() else []


# ---- the heart of it: the record of a run, in this process and a copy of it ----


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (UserError("no"), "FAILED"), (ValueError(), "FAILED")]
    + [(kind, "KILLED") for kind in (KeyboardInterrupt(), SystemExit(1))],
)
def test_every_end_of_a_run_is_told_to_mlflow_and_leaves_no_note(
    tmp_path: Path, mlflow_uri: str, error: BaseException | None, status: str
) -> None:
    run_id = ""
    with suppress(BaseException), tracked(tmp_path, Settings(), "build-dataset") as (tracker, note):
        run_id = tracker.run_id
        with tracker.stage("edit"):
            note.at("edit")
            (run,) = active.running(tmp_path)
            assert (run.stage, run.mlflow_run_id) == ("edit", run_id)
            assert active.left_runs(tmp_path) == []
            if error is not None:
                raise error
    assert statuses(mlflow_uri, run_id) == {"": status, "edit": status}
    assert notes(tmp_path) == []


def killed_in_a_stage(root: Path, stage: str = "edit") -> str:
    """Let a copy of this process be killed in the middle of a stage. Returns MLflow's run."""

    def doomed() -> None:
        with tracked(root, Settings(), "build-dataset", ["edit.steps=7"], {"force": ["edit"]}) as (tracker, note):
            with tracker.stage("portraits"):
                note.at("portraits")
            with tracker.stage(stage):
                note.at(stage)
                os.kill(os.getpid(), signal.SIGKILL)

    assert wait(fork(doomed)) == -signal.SIGKILL
    ((_, run),) = active.left_runs(root)
    return run.mlflow_run_id


def test_a_killed_run_is_ended_in_every_record_by_the_next_start(tmp_path: Path, mlflow_uri: str) -> None:
    run_id = killed_in_a_stage(tmp_path)
    assert active.running(tmp_path) == []
    assert statuses(mlflow_uri, run_id) == {"": "RUNNING", "portraits": "FINISHED", "edit": "RUNNING"}
    with tracked(tmp_path, Settings(), "distill"):
        assert statuses(mlflow_uri, run_id) == {"": "KILLED", "portraits": "FINISHED", "edit": "KILLED"}
        assert active.left_runs(tmp_path) == []
    assert notes(tmp_path) == []
    note = last_run(tmp_path, "build-dataset")
    assert (note.state, note.stage, note.overrides) == ("killed", "edit", ["edit.steps=7"])
    assert note.parameters == {"force": ["edit"]}  # what `retry` passes again


def test_a_copied_root_ends_no_run_of_the_original(tmp_path: Path, mlflow_uri: str) -> None:
    import shutil

    original, copy = tmp_path / "A", tmp_path / "B"
    with tracked(original, Settings(), "build-dataset") as (tracker, _):
        shutil.copytree(original, copy)
        assert active.running(copy) == []
        end_left_runs(copy, mlflow_uri)
        assert statuses(mlflow_uri, tracker.run_id) == {"": "RUNNING"}
        assert active.left_runs(copy) == []
    assert statuses(mlflow_uri, tracker.run_id) == {"": "FINISHED"}


def test_prefects_flow_run_of_a_dead_process_is_crashed_and_an_ended_one_keeps_its_state(
    prefect_api: None, tmp_path: Path, mlflow_uri: str
) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Completed, Running

    @flow(name="left-running")
    def stand_in() -> None:
        """Never runs."""

    with tracked(tmp_path, Settings(), "distill") as (tracker, _):
        """Its MLflow run stands for that of the others."""

    def killed(flow_run: str) -> None:
        place = str(tmp_path.resolve())
        run = active.ActiveRun("build-dataset", "demo", place, mlflow_uri, tracker.run_id, flow_run, stage="edit")

        def doomed() -> None:
            with active.noted(tmp_path, run):
                os.kill(os.getpid(), signal.SIGKILL)

        assert wait(fork(doomed)) == -signal.SIGKILL

    with get_client(sync_client=True) as client:
        for state, after in ((Running(), "CRASHED"), (Completed(), "COMPLETED")):
            flow_run = client.create_flow_run(stand_in, state=Running())
            client.set_flow_run_state(flow_run.id, state, force=True)
            killed(str(flow_run.id))
            # A start that cannot reach the server leaves that much to the next one.
            with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
                (ended,) = end_left_runs(tmp_path, mlflow_uri)
                assert (ended.stage, last_run(tmp_path, "build-dataset").state) == ("edit", "killed")
                assert end_left_runs(tmp_path, mlflow_uri) == []
                assert len(active.left_runs(tmp_path)) == 1
                assert active.killed(tmp_path) == []
            assert end_left_runs(tmp_path, mlflow_uri) == []
            assert notes(tmp_path) == []
            found = client.read_flow_run(flow_run.id).state
            assert found is not None
            assert found.type.value == after
            client.delete_flow_run(flow_run.id)


class Relay:
    """A server on loopback that passes everything on to another one, until it goes away."""

    def __init__(self, port: int) -> None:
        self.port, self.open = port, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.own_port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, far = self.listener.accept()[0], socket.create_connection(("127.0.0.1", self.port))
                self.open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def go_away(self) -> None:
        for each in [self.listener, *self.open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def test_a_server_that_goes_away_ends_no_work_and_is_told_of_the_end_later(
    prefect_api: None, tmp_path: Path, mlflow_uri: str
) -> None:
    from urllib.parse import urlparse

    import httpx
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows.track.prefect_pages import ProgressBar, Tally, flow_run_id, show_funnels, show_work

    url = PREFECT_API_URL.value() or ""
    relay = Relay(urlparse(url).port or 0)
    done: list[str] = []

    def work() -> Tally:
        bar = ProgressBar("edit")
        for step in range(1, 4):
            bar.update(step, 3)
            done.append(f"step {step}")
        return Tally(made=3)

    @flow(name="build-dataset")
    def build() -> None:
        with tracked(tmp_path, Settings(), "build-dataset") as (tracker, note):
            done.append(str(flow_run_id()))
            note.at("portraits")
            show_work("portraits", "portraits", lambda: Tally(made=1))
            relay.go_away()
            note.at("edit")
            show_work("edit", "edit", work)
            show_funnels([{"style": "zombie"}])
            done.append(tracker.run_id)

    through = {
        PREFECT_API_URL: url.replace(str(urlparse(url).port), str(relay.own_port)),
        PREFECT_CLIENT_MAX_RETRIES: 0,
    }
    try:
        with temporary_settings(through), pytest.raises(httpx.TransportError):
            build()  # Prefect's own last word
    finally:
        EventsWorker.set_client_override(None)
    flow_run, *steps, mlflow_run = done
    assert steps == ["step 1", "step 2", "step 3"]
    assert statuses(mlflow_uri, mlflow_run) == {"": "FINISHED"}
    assert active.killed(tmp_path) == []
    assert [run.ended for _, run in active.left_runs(tmp_path)] == ["completed"]
    with get_client(sync_client=True) as client:
        states = [client.read_flow_run(UUID(flow_run)).state]
        assert end_left_runs(tmp_path, mlflow_uri) == []
        states.append(client.read_flow_run(UUID(flow_run)).state)
    assert [state.type.value for state in states if state] == ["RUNNING", "COMPLETED"]
    assert notes(tmp_path) == []


def test_an_error_of_the_work_itself_ends_the_run_as_it_does_without_prefect(prefect_api: None) -> None:
    from prefect import flow

    from flows.track.prefect_pages import show_work

    def work() -> Any:
        raise ZeroDivisionError

    @flow(name="build-dataset")
    def build() -> None:
        show_work("edit", "edit", work)

    for run in (build, build.fn):
        with pytest.raises(ZeroDivisionError):
            run()


# ---- processes that a flow starts ----


def sit(mark: str) -> None:
    """Work for minutes, in a process of a pool."""
    Path(mark).write_text(str(os.getpid()))
    time.sleep(300)


def train_for_minutes(work: Work) -> Summary:
    """Say that the training runs, and go on with it."""
    report(1, 1000)
    (work.folder / f"rank-{os.environ['RANK']}").write_text(str(os.getpid()))
    time.sleep(300)
    raise AssertionError("it was not ended")


def pretrain_for_minutes(folder: Path) -> None:
    """Use the pool of the flow pretrain-embedded as it does."""
    with _one_thread_processes() as pool, killed_on_error():
        pool.submit(sit, str(folder / "rank-0")).result()


def train_together_for_minutes(folder: Path) -> None:
    settings = Settings.model_validate({"run": {"training_processes": 2}, "distill": {"batch_size": 2}})
    from data_catalog.store.stage import Partition

    train_together(Work(Partition("distill"), {}, settings, {}, folder), train_for_minutes)


def interrupt(*given: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(("work", "count"), [(pretrain_for_minutes, 1), (train_together_for_minutes, 2)])
def test_an_interrupted_training_leaves_no_process(
    tmp_path: Path, work: Callable[[Path], None], count: int, number: signal.Signals
) -> None:
    def train() -> None:
        signal.signal(signal.SIGTERM, interrupt)  # as flows.cli does
        work(tmp_path)

    parent = fork(train)
    marks = [tmp_path / f"rank-{rank}" for rank in range(count)]
    until(lambda: all(mark.exists() and mark.read_text() for mark in marks), "the training", seconds=90)
    family = living_children(parent)
    assert {int(mark.read_text()) for mark in marks} <= {process.pid for process in family}
    os.kill(parent, number)
    assert wait(parent) == (1 if number == signal.SIGTERM else -number)
    # A dead parent's children become ours or init's; what matters is that they end.
    assert psutil.wait_procs(family, timeout=20)[1] == []
