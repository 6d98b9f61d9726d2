"""No process of a run stays, whatever ends it, and every record says how it ended, at the latest after the next start.

The records: MLflow's run and its child runs, Prefect's flow run, the list of last runs, the notes of runs in work.
"""

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from data_catalog.workspace import Workspace
from flows.lab.pretrain_embedded import _one_thread_processes, killed_on_error
from flows.run import active
from flows.run.history import last_run
from flows.run.lifecycle import end_left_runs, tracked
from flows.track.mlflow_client import database_uri
from flows.track.mlflow_database import database_path
from tasks.progress import report
from tasks.training.processes import train_together
from tests.worlds import commands, web
from tests.worlds.checkouts import Checkout, make_checkout
from tests.worlds.commands import SECONDS, until
from tests.worlds.processes import fork, wait
from tests.worlds.terminal import pieces

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
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended since
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


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
    with suppress(BaseException), tracked(Workspace(Settings(), tmp_path), "build-dataset") as (tracker, note):
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
        with tracked(Workspace(Settings(), root, ("edit.steps=7",)), "build-dataset", {"force": ["edit"]}) as (
            tracker,
            note,
        ):
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
    with tracked(Workspace(Settings(), tmp_path), "distill"):
        assert statuses(mlflow_uri, run_id) == {"": "KILLED", "portraits": "FINISHED", "edit": "KILLED"}
        assert active.left_runs(tmp_path) == []
    assert notes(tmp_path) == []
    note = last_run(tmp_path, "build-dataset")
    assert (note.state, note.stage, note.overrides) == ("killed", "edit", ["edit.steps=7"])
    assert note.parameters == {"force": ["edit"]}  # what `retry` passes again


@pytest.mark.parametrize("created", [True, False])
def test_a_process_killed_before_it_notes_mlflows_run_leaves_none_running(
    tmp_path: Path, mlflow_uri: str, created: bool
) -> None:
    def doomed() -> None:
        create = MlflowClient.create_run

        def create_and_die(client: MlflowClient, *given: Any, **named: Any) -> Any:
            run = create(client, *given, **named) if created else None
            (tmp_path / "run").write_text(run.info.run_id if run else "")
            os.kill(os.getpid(), signal.SIGKILL)

        MlflowClient.create_run = create_and_die  # type: ignore[method-assign,assignment]
        with tracked(Workspace(Settings(), tmp_path), "build-dataset"):
            raise AssertionError("it lived")

    assert wait(fork(doomed)) == -signal.SIGKILL
    run_id = (tmp_path / "run").read_text()
    ((_, left),) = active.left_runs(tmp_path)
    assert left.mlflow_run_id is None
    if created:
        assert statuses(mlflow_uri, run_id) == {"": "RUNNING"}
    with tracked(Workspace(Settings(), tmp_path), "distill"):
        assert active.left_runs(tmp_path) == []
    if created:
        assert statuses(mlflow_uri, run_id) == {"": "KILLED"}
    assert last_run(tmp_path, "build-dataset").state == "killed"
    assert notes(tmp_path) == []


def test_a_copied_root_ends_no_run_of_the_original(tmp_path: Path, mlflow_uri: str) -> None:
    original, copy = tmp_path / "A", tmp_path / "B"
    with tracked(Workspace(Settings(), original), "build-dataset") as (tracker, _):
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

    with tracked(Workspace(Settings(), tmp_path), "distill") as (tracker, _):
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
        self.port, self.own_port, self.open = port, 0, []
        self.come_back()

    def come_back(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.own_port))
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
        with tracked(Workspace(Settings(), tmp_path), "build-dataset") as (tracker, note):
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
        # The process has one worker for events, whatever the address: it must not wait for this server in later tests.
        relay.come_back()
        EventsWorker.drain_all()
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
    time.sleep(2 * SECONDS)


def train_for_minutes(work: Work) -> Summary:
    """Say that the training runs, and go on with it."""
    report(1, 1000)
    (work.folder / f"rank-{os.environ['RANK']}").write_text(str(os.getpid()))
    time.sleep(2 * SECONDS)
    raise AssertionError("it was not ended")


def pretrain_for_minutes(folder: Path) -> None:
    """Use the pool of the flow pretrain-embedded as it does."""
    with _one_thread_processes() as pool, killed_on_error():
        pool.submit(sit, str(folder / "rank-0")).result()


def train_together_for_minutes(folder: Path) -> None:
    settings = Settings.model_validate({"run": {"training_processes": 2}, "distill": {"batch_size": 2}})
    from data_catalog.store.stage import Partition

    train_together(Work(Partition("distill"), {}, settings, {}, folder), train_for_minutes)


def reaped(process: int) -> list[int]:
    """Exit status of a child, negative for a signal; nothing as long as it lives."""
    found, status = os.waitpid(process, os.WNOHANG)
    return [os.waitstatus_to_exitcode(status)] if found else []


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
    until(lambda: all(mark.exists() and mark.read_text() for mark in marks), "the training")
    family = living_children(parent)
    assert {int(mark.read_text()) for mark in marks} <= {process.pid for process in family}
    os.kill(parent, number)
    ended: list[int] = []
    until(lambda: bool(ended.extend(reaped(parent)) or ended), "the end of the parent")
    assert ended == [1 if number == signal.SIGTERM else -number]
    # A dead parent's children become ours or init's; what matters is that they end.
    assert psutil.wait_procs(family, timeout=SECONDS)[1] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_workers_start_or_work_ends_them_and_says_so_plainly(
    tmp_path: Path, mlflow_uri: str, number: signal.Signals
) -> None:
    log = tmp_path / "build.log"
    asked = ["build", *commands.overrides(portraits__count="400", prompts__styles="[zombie]")]
    process = commands.start(tmp_path / "data", *asked, log=log, MLFLOW_TRACKING_URI=mlflow_uri)
    # While they start: closing a cluster then is what `distributed` cannot do.
    until(lambda: len(living_children(process.pid)) >= 2, "the workers")
    (run,) = active.running(tmp_path / "data")
    family = living_children(process.pid)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    assert process.wait(SECONDS) == 128 + number
    assert psutil.wait_procs(family, timeout=60)[1] == []
    said = log.read_text()
    assert said.index("to run: ") < said.index("interrupted; ")  # the work is known before it starts
    assert said.count("interrupted; finished partitions are kept") == 1
    assert "Traceback" not in said
    assert statuses(mlflow_uri, run.mlflow_run_id) == {"": "KILLED", "portraits": "KILLED"}
    assert last_run(tmp_path / "data", "build-dataset").state == "cancelled"
    assert notes(tmp_path / "data") == []


# ---- the same from outside: real commands, a real server and its deployments ----

DEPLOYMENTS = """name: stillroom
deployments:
  - {name: demo, entrypoint: "flows/build_dataset.py:build_dataset", parameters: {profile: demo}}
"""
LONG = {"edit__steps": "100"}  # so that the stage edit lasts
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


@dataclass
class Project:
    """A checkout whose services are up, with two styles."""

    checkout: Checkout

    @property
    def root(self) -> Path:
        return self.checkout.root

    @property
    def uri(self) -> str:
        return database_uri(database_path(self.root))

    @property
    def api(self) -> str:
        service = self.checkout.service("server")
        assert service is not None
        return service.url

    def overrides(self, seed: int, **changes: str) -> list[str]:
        """Settings of a small build, with edits of its own."""
        styles = str(self.checkout.path / "styles")
        return commands.overrides(prompts__styles_dir=styles, edit__seed=str(seed), **changes)

    def build(self, seed: int, *options: str, **changes: str) -> subprocess.Popen[str]:
        """Start `stillroom build`."""
        asked = ["build", "--json", *options, *self.overrides(seed, **changes)]
        return commands.start(self.root, *asked, cwd=self.checkout.path, log=self.log(seed))

    def log(self, seed: int) -> Path:
        return self.checkout.path.parent / f"build-{seed}.log"

    def ask(self, seed: int, **changes: str) -> str:
        """Ask the server for a run of the deployment. Returns the flow run's id."""
        found = web.get(f"{self.api}/deployments/name/build-dataset/demo").json()
        overrides = self.overrides(seed, **changes)[1::2]
        asked = {"parameters": {"profile": "demo", "overrides": overrides}, "state": {"type": "SCHEDULED"}}
        url = f"{self.api}/deployments/{found['id']}/create_flow_run"
        return str(web.post(url, json=asked).raise_for_status().json()["id"])

    def at_edit(self, seed: int) -> active.ActiveRun:
        """Wait until the run with these edits is in the middle of the stage edit."""
        found: list[active.ActiveRun] = []

        def reached() -> bool:
            mine = [run for run in active.running(self.root) if f"edit.seed={seed}" in run.overrides]
            found[:] = [run for run in mine if run.stage == "edit" and len(living_children(run.pid)) >= 2]
            return bool(found)

        until(reached, "the stage edit", poll=0.2)
        time.sleep(2)
        return found[0]

    def status(self) -> dict[str, Any]:
        return commands.run(self.root, "status", cwd=self.checkout.path)

    def prefect_state(self, flow_run: str | None) -> str:
        state = web.get(f"{self.api}/flow_runs/{flow_run}").raise_for_status().json()["state_type"]
        return str(state)

    def last_build(self) -> dict[str, Any]:
        """The last build as `status` shows it."""
        build: dict[str, Any] = next(run for run in self.status()["runs"] if run["flow"] == "build-dataset")
        return build


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(make_checkout(tmp_path_factory.mktemp("project") / "A", DEPLOYMENTS))
    (made.checkout.path / "styles").mkdir()
    for style in ("red-hair", "zombie"):
        shutil.copy(PROJECT / "configs" / "styles" / f"{style}.txt", made.checkout.path / "styles")
    try:
        made.checkout.up()
        yield made
    finally:
        made.checkout.end()
        for process in processes_of(made.root):
            process.kill()


def check_killed_in_the_records(project: Project, run: active.ActiveRun) -> None:
    """MLflow and Prefect say that it ended, and nothing is noted any more."""
    found = statuses(project.uri, run.mlflow_run_id)
    assert (found[""], found["edit"]) == ("KILLED", "KILLED"), found
    assert set(found.values()) <= {"KILLED", "FINISHED"}
    assert project.prefect_state(run.flow_run_id) in FINAL - {"COMPLETED"}
    assert [path for path in notes(project.root) if run.mlflow_run_id in path.read_text()] == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_build_ended_by_a_signal_leaves_no_process_and_true_records(project: Project, number: signal.Signals) -> None:
    seed = 100 + number
    process = project.build(seed, **LONG)
    run = project.at_edit(seed)
    assert run.flow_run_id is not None
    family = living_children(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal sends it to all of them
    else:
        process.send_signal(number)
    assert process.wait(SECONDS) == (-number if number == signal.SIGKILL else 128 + number)
    assert psutil.wait_procs(family, timeout=60)[1] == []

    status = project.status()
    assert status["running"] == []
    if number == signal.SIGKILL:
        assert [(each["flow"], each["stage"]) for each in status["killed"]] == [("build-dataset", "edit")]
        again = project.build(seed, edit__steps="3")
        assert again.wait(SECONDS) == 0, project.log(seed).read_text()[-3000:]
    else:
        assert "interrupted" in project.log(seed).read_text()
        assert "Traceback" not in project.log(seed).read_text()
        last = project.last_build()
        assert (last["state"], last["stage"]) == ("cancelled", "edit")
    check_killed_in_the_records(project, run)
    assert project.status()["killed"] == []
    assert notes(project.root) == []


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_a_mistake_that_begins_no_run(project: Project) -> None:
    process = project.build(200, "--cluster", "nope")
    assert process.wait(SECONDS) == 1
    said = project.log(200).read_text()
    assert "nope" in said
    assert "Traceback" not in said
    assert notes(project.root) == []
    experiments = [each.experiment_id for each in MlflowClient(tracking_uri=project.uri).search_experiments()]
    running = MlflowClient(tracking_uri=project.uri).search_runs(experiments, "attributes.status = 'RUNNING'")
    assert list(running) == []
    found = web.post(f"{project.api}/flow_runs/filter", json={"sort": "START_TIME_DESC"}).json()
    assert not [run for run in found if run["parameters"].get("cluster") == "nope"]  # refused before a run began


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_cancelled_on_prefects_pages_ends_with_its_workers(project: Project) -> None:
    flow_run = project.ask(300, **LONG)
    run = project.at_edit(300)
    assert run.flow_run_id == flow_run
    family = [psutil.Process(run.pid), *living_children(run.pid)]
    asked = {"state": {"type": "CANCELLING"}}
    web.post(f"{project.api}/flow_runs/{flow_run}/set_state", json=asked).raise_for_status()
    # Its own process may say first that it was interrupted.
    until(lambda: project.prefect_state(flow_run) == "CANCELLED", "the end of the run", poll=1)
    assert psutil.wait_procs(family, timeout=60)[1] == []
    check_killed_in_the_records(project, run)
    last = project.last_build()
    assert (last["state"], last["stage"]) == ("cancelled", "edit")
    assert notes(project.root) == []


def answer_on_a_terminal(project: Project, answer: str) -> tuple[int, str]:
    """Type an answer to `down` at a terminal. Returns its exit status and what it said."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.run", "down"],
        cwd=project.checkout.path,
        env=project.checkout.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    for piece in pieces(ours):
        asked_before = b"[y/N]" in said
        said += piece
        if not asked_before and b"[y/N]" in said:
            os.write(ours, f"{answer}\n".encode())
    return process.wait(SECONDS), said.decode()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_down_ends_runs_in_work_only_when_told_to(project: Project) -> None:
    together = {**LONG, "run__wait": "false"}
    process = project.build(401, **together)
    flow_run = project.ask(402, **together)
    runs = [project.at_edit(401), project.at_edit(402)]
    assert runs[1].flow_run_id == flow_run
    families = [each for run in runs for each in (psutil.Process(run.pid), *living_children(run.pid))]

    refused = project.checkout.run("flows.run", "down")
    assert refused.returncode == 1
    assert "runs are in work" in refused.stderr
    assert "NOW=1" in refused.stderr
    status, said = answer_on_a_terminal(project, "n")
    assert (status, "nothing was ended" in said) == (1, True), said
    assert said.count("build-dataset demo at edit") == 2
    assert all(each.is_running() for each in families)

    ended = project.checkout.run("flows.run", "down", "--now")
    assert ended.stdout == "ended: ui, deployments, server\n", ended.stderr
    assert process.wait(SECONDS) == 128 + signal.SIGTERM
    assert psutil.wait_procs(families, timeout=60)[1] == []
    assert processes_of(project.root) == []
    last = project.last_build()
    assert (last["state"], last["stage"]) == ("cancelled", "edit")
    project.checkout.up()
    for run in runs:
        check_killed_in_the_records(project, run)
    assert notes(project.root) == []


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_runs_whose_prefect_server_is_killed_end_and_are_ended_in_its_records_later(project: Project) -> None:
    short = {"edit__steps": "12"}
    server, serving = project.checkout.service("server"), project.checkout.service("deployments")
    assert server is not None
    assert serving is not None
    process = project.build(501, **short)
    flow_run = project.ask(502, **LONG)
    runs = [project.at_edit(501), project.at_edit(502)]
    assert runs[1].flow_run_id == flow_run
    families = [each for run in runs for each in (psutil.Process(run.pid), *living_children(run.pid))]
    os.kill(server.pid, signal.SIGKILL)
    # The work needs no server. Prefect's client tries for a minute to tell it the last word.
    assert process.wait(SECONDS) == 0, project.log(501).read_text()[-3000:]
    said = project.log(501).read_text()
    outcome, _ = json.JSONDecoder().raw_decode(said, said.index("\n{") + 1)
    assert "dataset" in outcome
    assert set(statuses(project.uri, runs[0].mlflow_run_id).values()) == {"FINISHED"}
    until(lambda: not serving.alive(), "the end of the serving process", poll=1)
    assert psutil.wait_procs(families, timeout=300)[1] == []

    project.checkout.up()
    states = [project.prefect_state(run.flow_run_id) for run in runs]
    assert states[0] == "COMPLETED"
    assert states[1] in FINAL
    assert "RUNNING" not in statuses(project.uri, runs[1].mlflow_run_id).values()
    assert notes(project.root) == []
    assert project.status()["running"] == []
