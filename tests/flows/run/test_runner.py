"""Partitions fan out over worker processes; one that fails or dies takes no other with it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import RunSettings
from flows.run.runner import Outcome, Workers


def double(number: int) -> int:
    if number < 0:
        raise UserError("a negative number", hint="use a positive one")
    return 2 * number


def die_the_first_time(marker: str) -> int:
    """Kill the own process, as the kernel does for want of memory, unless an earlier try left the marker."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die(marker: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(RunSettings(workers=2)) as pool:
        yield pool


def gather(workers: Workers, function: Callable[[Any], Any], jobs: dict[str, Any]) -> dict[str, Outcome]:
    return {outcome.key: outcome for outcome in workers.outcomes(function, jobs, workers.start(function, jobs))}


def test_one_failing_job_stops_no_other(workers: Workers) -> None:
    outcomes = gather(workers, double, {"a": 1, "b": -1, "c": 3})
    assert (outcomes["a"].value, outcomes["c"].value) == (2, 6)
    error = outcomes["b"].error
    assert isinstance(error, UserError)
    assert error.hint == "use a positive one"


def test_a_job_whose_worker_is_killed_is_made_again(workers: Workers, tmp_path: Path) -> None:
    jobs = {"victim": str(tmp_path / "marker"), "neighbour": str(tmp_path)}
    outcomes = gather(workers, die_the_first_time, jobs)
    assert outcomes["victim"].error is None
    assert outcomes["neighbour"].error is None


@pytest.mark.slow
def test_a_job_that_kills_every_worker_fails_by_name() -> None:
    with Workers(RunSettings(workers=1)) as pool:
        outcomes = gather(pool, die, {"edit/zombie/0001": ""})
    assert "edit/zombie/0001" in str(outcomes["edit/zombie/0001"].error)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_jobs_wait_on_the_scheduler_where_the_end_of_a_worker_does_not_touch_them(
    device: Literal["cpu", "cuda"],
) -> None:
    """A job that waits on a worker shares the blame for each end of that, as of all workers at their wall-time."""
    jobs = {str(number): 0.5 for number in range(12)}
    with Workers(RunSettings(workers=2, device=device)) as pool:
        futures = pool.start(time.sleep, jobs)
        list(pool.outcomes(time.sleep, {"0": 0.5}, {"0": futures["0"]}))
        held = pool.client().processing()
        assert max(len(tasks) for tasks in held.values()) == 1


def test_nothing_starts_before_the_first_job() -> None:
    with Workers(RunSettings()) as pool:
        assert pool._client is None
