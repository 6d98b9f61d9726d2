"""Pieces of work as Prefect's task runs."""

import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import pytest

from data_catalog.config.errors import UserError
from flows.track.prefect_pages import Mark, Tally, show_work, show_work_elsewhere
from tests.worlds.commands import until


def test_an_error_that_ends_the_run_comes_through_a_task_run(prefect_api: None) -> None:
    from prefect import flow

    def find_no_worker(*_: Mark) -> Tally:
        raise UserError("no worker")

    def fail_partly(*_: Mark) -> Tally:
        return Tally(failed=1)

    @flow
    def run(show: Callable[..., None]) -> None:
        show("edit", "edit bald", fail_partly)
        show("edit", "edit neon", find_no_worker)

    for show in (show_work, lambda name, run_name, work: show_work_elsewhere(name, run_name, time.time(), work)):
        with pytest.raises(UserError, match="no worker"):
            run(show)


def test_work_of_other_processes_is_shown_at_its_own_times(prefect_api: None) -> None:
    """Await two pieces one after another that overlapped; the second ended before the first."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import TaskRun
    from prefect.events.worker import EventsWorker

    from flows.track.prefect_pages import flow_run_id

    began, ids = time.time() - 100, []

    def first(mark: Mark) -> Tally:
        mark((began, began + 50))
        return Tally(made=1)

    def second(mark: Mark) -> Tally:
        mark((began + 20, began + 30))
        mark((began + 10, began + 40))
        return Tally(made=1, failed=1, causes=["edit/neon/0001: the pencil broke"])

    @flow
    def run() -> None:
        ids.append(flow_run_id())
        show_work_elsewhere("edit", "edit bald", began, first)
        show_work_elsewhere("edit", "edit neon", began, second)

    run()
    EventsWorker.drain_all()  # the server learns of task runs by events
    found: dict[str, TaskRun] = {}

    def ended() -> bool:
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [UUID(ids[0])]}))
        found.update({each.name: each for each in runs})
        return len(runs) == 2 and all(each.end_time for each in runs)

    until(ended, "both task runs", poll=0.2)

    def after(moment: datetime | None) -> float:
        assert moment is not None
        return moment.timestamp() - began

    spans = {name: (after(each.start_time), after(each.end_time)) for name, each in found.items()}
    assert spans["edit bald"] == pytest.approx((0, 50), abs=0.01)
    assert spans["edit neon"] == pytest.approx((10, 40), abs=0.01)
    state = found["edit neon"].state
    assert state is not None
    assert state.is_failed()
    assert (state.message or "").endswith("\nedit/neon/0001: the pencil broke")
