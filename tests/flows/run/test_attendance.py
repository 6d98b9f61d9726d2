"""A run whose workers are gone: jobs are asked for again, the user is told the queue's words, and at last it ends."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import RunSettings
from flows.run import attendance, clusters, runner
from flows.run.attendance import Attendance, NoWorkersError
from flows.run.clusters import AddressCluster
from flows.run.runner import Workers
from flows.run.slurm import SlurmQueue
from tests.worlds.commands import until
from tests.worlds.stand_in_slurm import StandIn

OPTIONS = {"memory": "1GB", "walltime": "00:10:00", "interface": "lo"}
MOMENT = 0.02  # minutes


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def describe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunSettings]:
    """Write a cluster's file; returns the settings of a run on it, which looks at its workers often."""
    for name, seconds in {"LOOK_SECONDS": 0.1, "QUEUE_SECONDS": 0.5}.items():
        monkeypatch.setattr(attendance, name, seconds)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(clusters, "CLUSTERS", tmp_path)

    def write(**fields: Any) -> RunSettings:
        (tmp_path / "mine.yaml").write_text(json.dumps(fields))
        return RunSettings(cluster="mine")

    return write


def nap(task: tuple[str, float]) -> str:
    """Note the begin, then sleep."""
    folder, seconds = task
    with (Path(folder) / "begun").open("a") as begun:
        begun.write("begun\n")
    time.sleep(seconds)
    return "rested"


def outlast_the_job_once(folder: str) -> str:
    """Work longer than the job lasts, the first time."""
    return nap((folder, 0.0 if (Path(folder) / "begun").exists() else 300.0))


def test_jobs_that_have_all_ended_are_asked_for_again(
    queue: StandIn, describe: Callable[..., RunSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = describe(kind="slurm", jobs=1, options=OPTIONS)
    tasks = dict.fromkeys(("first", "second"), str(tmp_path))
    with Workers(run) as workers:
        futures = workers.start(outlast_the_job_once, tasks)
        until((tmp_path / "begun").exists, "the begin of a task")
        (job,) = queue.jobs()
        queue.end(job)
        outcomes = list(workers.outcomes(outlast_the_job_once, tasks, futures))
    assert [outcome.value for outcome in outcomes] == ["rested", "rested"]
    assert len(queue.jobs()) == 2
    assert f"all jobs of the cluster mine ended (job {job}: TIMEOUT (TimeLimit)); submitting them again, 1 of 3" in (
        caplog.text
    )
    assert all(queue.state(job) != "there" for job in queue.jobs())


def test_jobs_that_end_each_time_are_asked_for_so_often_and_no_more(
    queue: StandIn, describe: Callable[..., RunSettings]
) -> None:
    queue.tell("held")
    queue.command(
        "squeue", "for job in $(tr -c '0-9\\n' ' ' <<<${@: -1}); do echo \"$job|FAILED|NonZeroExitCode\"; done"
    )
    run = describe(kind="slurm", jobs=1, again=2, options=OPTIONS)
    with Workers(run) as workers, pytest.raises(NoWorkersError, match="2 times asked for again") as caught:
        workers.client()
    assert caught.value.fields["queue"].endswith("FAILED (NonZeroExitCode)")
    assert "mine.yaml" in str(caught.value.hint)
    assert len(queue.jobs()) == 3


def test_a_queue_that_starts_nothing_is_told_and_ends_the_run(
    queue: StandIn, describe: Callable[..., RunSettings], caplog: pytest.LogCaptureFixture
) -> None:
    queue.tell("held")
    run = describe(kind="slurm", jobs=2, patience=MOMENT, options=OPTIONS)
    with Workers(run) as workers, pytest.raises(NoWorkersError, match=r"mine had no worker for 0\.02 min") as caught:
        workers.client()
    assert "PENDING (Resources)" in caught.value.fields["queue"]
    assert "the cluster mine has no worker (jobs" in caplog.text
    assert [queue.state(job) for job in queue.jobs()] == ["CANCELLED|None"] * 2


def test_a_queue_that_takes_no_job_is_said_at_once(queue: StandIn, describe: Callable[..., RunSettings]) -> None:
    queue.tell("refused")
    run = describe(kind="slurm", jobs=2, options=OPTIONS)
    with Workers(run) as workers, pytest.raises(UserError, match="sbatch accepted no job") as caught:
        workers.client()
    assert "Invalid partition name" in caught.value.fields["sbatch"]


def test_a_queue_that_refuses_jobs_later_ends_the_run_with_its_words(
    queue: StandIn, describe: Callable[..., RunSettings], tmp_path: Path
) -> None:
    run = describe(kind="slurm", jobs=1, again=1, options=OPTIONS)
    tasks = {"a": (str(tmp_path), 60.0)}
    with Workers(run) as workers:
        futures = workers.start(nap, tasks)
        until((tmp_path / "begun").exists, "the begin of a task")
        queue.tell("refused")
        queue.end(queue.jobs()[0])
        with pytest.raises(NoWorkersError) as caught:
            list(workers.outcomes(nap, tasks, futures))
    assert "Invalid partition name" in caught.value.fields["queue"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_run_ended_by_a_signal_leaves_no_job_in_the_queue(
    queue: StandIn, describe: Callable[..., RunSettings], number: signal.Signals
) -> None:
    queue.tell("held")
    run = describe(kind="slurm", jobs=2, options=OPTIONS)
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # ignored where the tests run behind `nohup` or `&`

    def interrupt() -> None:
        until(lambda: len(queue.jobs()) == 2, "the jobs")
        time.sleep(0.5)
        assert signal.getsignal(number) is not signal.SIG_DFL
        os.kill(os.getpid(), number)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises((SystemExit, KeyboardInterrupt)), Workers(run) as workers:
        workers.client()
    interrupter.join()
    assert [queue.state(job) for job in queue.jobs()] == ["CANCELLED|None"] * 2
    assert signal.signal(number, before) is usual


def test_a_scheduler_that_loses_its_workers_is_told_and_ends_the_run(
    describe: Callable[..., RunSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {"a": (str(tmp_path), 60.0)}
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        run = describe(kind="address", scheduler=cluster.scheduler_address, patience=MOMENT)
        with Workers(run) as workers:
            futures = workers.start(nap, tasks)
            until((tmp_path / "begun").exists, "the begin of a task")
            cluster.scale(0)
            with pytest.raises(NoWorkersError, match=r"mine had no worker for 0\.02 min") as caught:
                list(workers.outcomes(nap, tasks, futures))
    assert f"dask worker {cluster.scheduler_address} --nthreads 1" in str(caught.value.hint)
    assert "the cluster mine has no worker; the run ends if none comes within" in caplog.text


def test_a_scheduler_without_workers_is_waited_for_no_longer(describe: Callable[..., RunSettings]) -> None:
    with distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        run = describe(kind="address", scheduler=cluster.scheduler_address, patience=MOMENT)
        with Workers(run) as workers, pytest.raises(NoWorkersError, match=r"had no worker for 0\.02 min"):
            workers.client()


def test_work_that_outlasts_the_patience_is_not_ended(describe: Callable[..., RunSettings], tmp_path: Path) -> None:
    run = describe(kind="local", workers=1, patience=MOMENT)
    tasks = {"a": (str(tmp_path), 120 * MOMENT)}
    with Workers(run) as workers:
        (outcome,) = workers.outcomes(nap, tasks, workers.start(nap, tasks))
    assert outcome.value == "rested"


def test_only_time_in_which_work_is_waited_for_counts(describe: Callable[..., RunSettings]) -> None:
    """Between two looks there may be hours of another stage, in this process."""
    with distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        spec = AddressCluster(kind="address", scheduler=cluster.scheduler_address, patience=MOMENT)
        with distributed.Client(cluster, set_as_default=False) as client:
            watch = Attendance(client, None, spec, RunSettings(cluster="mine"))
            watch.look()
            time.sleep(2 * 60 * MOMENT)
            watch.count_anew()
            watch.look()
            time.sleep(2 * 60 * MOMENT)
            with pytest.raises(NoWorkersError):
                watch.look()


@pytest.mark.parametrize(
    ("squeue", "sacct", "words", "ended"),
    [
        ("echo '7|PENDING|Resources'; echo '8|RUNNING|None'", "", "job 7: PENDING (Resources); job 8: RUNNING", False),
        ("echo '7|TIMEOUT|TimeLimit'; echo '8|PENDING|None'", "", "job 7: TIMEOUT (TimeLimit); job 8: PENDING", False),
        ("echo '7|PREEMPTED|None'; echo '8|PREEMPTED|None'", "", "jobs 7, 8: PREEMPTED", True),
        (
            "true",
            "echo '7|CANCELLED by 0|None'",
            "job 7: CANCELLED by 0; job 8: COMPLETED (no longer in the queue)",
            True,
        ),
        ("true", "echo '7|RUNNING|None'", "jobs 7, 8: COMPLETED (no longer in the queue)", True),
        (
            "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
            "exit 1",
            "no longer in the queue",
            True,
        ),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", "", "squeue: Unable to contact slurm", False),
    ],
)
def test_the_queue_is_told_in_its_own_words(queue: StandIn, squeue: str, sacct: str, words: str, ended: bool) -> None:
    queue.command("squeue", squeue)
    queue.command("sacct", sacct)
    with SlurmQueue(cores=1, **OPTIONS, scheduler_options={"dashboard_address": "127.0.0.1:0"}) as cluster:
        cluster.job_ids = ("7", "8")
        report = cluster.report()
    assert words in report.words
    assert report.ended == ended
