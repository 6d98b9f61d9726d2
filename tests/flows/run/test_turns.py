"""Turns of flow runs on a data root: the second waits, says for which run, and shows it on its page."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from data_catalog.config.profiles import load_settings
from data_catalog.workspace import Workspace
from flows.run import active
from flows.run.lifecycle import make_turn, tracked
from tests.worlds.commands import until

SOON = 0.2  # seconds after which a run that does not wait has begun
LATE = 300  # seconds that anything may take on a busy machine


@contextmanager
def in_work(root: Path, flow: str = "build-dataset") -> Iterator[active.ActiveNote]:
    """A run of another process."""
    with active.noted(root, run_of(root, flow)) as note:
        note.at("edit")
        yield note


def run_of(root: Path, flow: str) -> active.ActiveRun:
    return active.ActiveRun(flow, "demo", str(root), None, None, None)


def begin(root: Path, flow: str, *overrides: str) -> tuple[threading.Thread, threading.Event]:
    """Start a run in a thread; the event says that it began."""
    began = threading.Event()
    turn = make_turn(Workspace(load_settings("demo", overrides), root, overrides), flow)

    def carry_out() -> None:
        with active.noted(root, run_of(root, flow), turn):
            began.set()

    thread = threading.Thread(target=carry_out)
    thread.start()
    return thread, began


@pytest.fixture(autouse=True)
def poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active, "WAIT_SECONDS", 0.02)


@pytest.mark.parametrize(("first", "second"), [("build-dataset", "build-dataset"), ("distill", "edit-video"),
                                               ("build-dataset", "claims"), ("claims", "ablate")])  # fmt: skip
def test_a_run_waits_for_the_one_in_work_and_names_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, first: str, second: str
) -> None:
    caplog.set_level(logging.INFO, "flows.run.lifecycle")
    with in_work(tmp_path, first):
        thread, began = begin(tmp_path, second)
        until(lambda: bool(caplog.records) or began.is_set(), "the message of the run that waits")
        assert not began.wait(SOON)
        assert [run.flow for run in active.running(tmp_path)] == [first]
    thread.join(LATE)
    assert began.is_set()
    assert list((tmp_path / active.FOLDER).iterdir()) == []
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith(f"waiting for {first} demo at edit, process ")
    assert said[0].endswith("--set run.wait=false runs beside it")
    assert said[1:] == ["the data root is free; the run goes on"]


@pytest.mark.parametrize(("flow", "overrides"), [("build-dataset", ["run.wait=false"]), ("claims", []), ("ablate", [])])
def test_a_run_that_is_told_to_and_the_calls_of_a_laboratory_flow_run_beside_it(
    tmp_path: Path, flow: str, overrides: list[str]
) -> None:
    with in_work(tmp_path, flow):
        thread, began = begin(tmp_path, flow, *overrides)
        assert began.wait(LATE)
    thread.join(LATE)


def test_runs_that_wait_go_on_one_after_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    most: list[int] = []
    with in_work(tmp_path):
        waiting = [begin(tmp_path, "distill") for _ in range(4)]
        until(lambda: caplog.text.count("waiting for ") == len(waiting), "the messages of all that wait")
    while any(thread.is_alive() for thread, _ in waiting):
        most.append(len(active.running(tmp_path)))
    assert max(most, default=0) <= 1
    assert all(began.is_set() for _, began in waiting)


def test_what_was_made_is_looked_for_once_the_root_is_free(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[list[str]] = []

    def find_maker() -> None:
        asked.append([run.flow for run in active.running(tmp_path)])

    def carry_out() -> None:
        with tracked(Workspace(load_settings("demo"), tmp_path, ()), "distill", find_maker=find_maker):
            pass

    thread = threading.Thread(target=carry_out)
    with in_work(tmp_path):
        thread.start()
        until(lambda: "waiting for build-dataset" in caplog.text or bool(asked), "the message of the run that waits")
        assert asked == []
    thread.join(LATE)
    assert asked == [["distill"]]


def test_a_dead_process_is_not_waited_for(tmp_path: Path) -> None:
    with in_work(tmp_path) as note:
        left = note.path.read_bytes()
    note.path.write_bytes(left)  # as a killed process leaves it: a note, and no lock
    thread, began = begin(tmp_path, "distill")
    assert began.wait(LATE)
    thread.join(LATE)


def test_the_page_of_a_run_shows_that_it_waits(prefect_api: None, tmp_path: Path) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client

    from flows.track.prefect_pages import flow_run_id

    seen: list[Any] = []

    def state_of(run_id: str) -> Any:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(run_id)).state

    @flow(name="distill")
    def distill() -> None:
        run_id = str(flow_run_id())

        def look() -> None:
            until(lambda: state_of(run_id).name == "Waiting", "the state of a run that waits", poll=0.1)
            seen.append(state_of(run_id))
            released.set()

        released, watching = threading.Event(), threading.Thread(target=look)
        holding = threading.Thread(target=hold, args=(released,))
        holding.start()
        held.wait(LATE)
        watching.start()
        with active.noted(tmp_path, run_of(tmp_path, "distill"), make_turn(Workspace.open(), "distill")):
            seen.append(state_of(run_id))
        watching.join()
        holding.join()

    held = threading.Event()

    def hold(released: threading.Event) -> None:
        with in_work(tmp_path):
            held.set()
            released.wait(LATE)

    distill()
    assert seen[0].is_running()
    assert seen[0].message.startswith("waiting for build-dataset demo at edit, process ")
    assert seen[1].name == "Running"
