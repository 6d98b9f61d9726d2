"""Watching a run that another process carries out: its states, our lines of its log, and what Ctrl-C leaves."""

import logging
import os
import signal
import threading
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import LogCreate
from prefect.states import Completed, Running, Scheduled
from prefect.types import DateTime

from flows.run.signals import LeftRunning
from flows.run.watching import watch


@flow(name="watched")
def _watched() -> None: ...


@task
def _task() -> None: ...


@pytest.fixture
def run_id(prefect_api: None) -> UUID:
    with get_client(sync_client=True) as client:
        return client.create_flow_run(_watched, state=Scheduled()).id


def write(run_id: UUID, message: str, name: str = "flows.run.run", level: int = logging.INFO) -> None:
    line = LogCreate(name=name, level=level, message=message, timestamp=DateTime.now("UTC"), flow_run_id=run_id)
    with get_client(sync_client=True) as client:
        client.create_logs([line])


def become(run_id: UUID, state: Any) -> None:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, state, force=True)


def test_states_and_our_lines_are_said_once_and_those_of_subflows_too(run_id: UUID) -> None:
    said: list[str] = []
    below: list[UUID] = []

    def say(line: str) -> None:
        said.append(line)
        if line == "scheduled":
            become(run_id, Running())
            write(run_id, "Executing 5 tasks", "prefect.flow_runs")
            write(run_id, "a detail", level=logging.DEBUG)
            write(run_id, "portraits  4 made")
        elif line == "portraits  4 made":
            become(run_id, Running(name="Waiting", message="waiting for distill demo"))
        elif line == "waiting":
            with get_client(sync_client=True) as client:
                stands_for_it = client.create_task_run(_task, run_id, dynamic_key="0")
                below.append(client.create_flow_run(_watched, parent_task_run_id=stands_for_it.id).id)
            write(below[0], "distill    1 made", "tasks.distill")
        elif line == "distill    1 made":
            become(run_id, Completed())

    ended = watch(run_id, "http://page", say)
    assert ended.state.is_completed()
    ours = ["scheduled", "portraits  4 made", "waiting", "distill    1 made", "completed"]
    assert [line for line in said if line != "running"] == ours


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_the_run_and_says_what_to_type(run_id: UUID, number: int, code: int) -> None:
    from flows.run.signals import ending_by_signal

    def say(line: str) -> None:
        os.kill(os.getpid(), number)
        threading.Event().wait(300)
        raise AssertionError("the signal did not end it")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run behind `&`
    try:
        with pytest.raises(LeftRunning) as caught, ending_by_signal():
            watch(run_id, "http://page", say)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.code == code
    assert caught.value.said.splitlines() == [
        "the run goes on: http://page",
        f"  watch it    prefect flow-run watch {run_id}",
        f"  end it      prefect flow-run cancel {run_id}",
    ]
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run_id).state
    assert state is not None
    assert state.is_scheduled()


def test_the_command_line_says_it_in_place_of_what_it_says_of_its_own_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows import cli
    from flows.run import engine

    def trigger(*_: Any, **__: Any) -> Any:
        raise LeftRunning(KeyboardInterrupt(), "the run goes on: there")

    monkeypatch.setattr(engine, "trigger", trigger)
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "build-dataset", "--watch"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "the run goes on: there\n"
