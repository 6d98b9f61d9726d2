"""Clusters: partitions run on real worker processes; a lost worker costs the partition it was working on."""

import functools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.config.settings import RunSettings, Settings
from data_catalog.plan.plan import make_plan
from data_catalog.store.execute import execute
from data_catalog.store.stage import Stage, Summary, Work
from data_catalog.store.store import Store
from flows.run import clusters
from flows.run.clusters import code_digest, reachable, read_cluster, start_cluster
from flows.run.runner import Workers
from flows.run.worker_setup import visible_gpus
from tests.worlds.stand_in_slurm import StandIn

STYLES, BLOCKS = ["red-hair", "zombie"], list(range(4))
VICTIM = "draw/zombie/0001"
PATIENCE = 300  # seconds that a killed worker may take to be noticed on a busy machine


def draw(work: Work) -> Summary:
    """Write down that it began; the victim then waits, the first time, to be killed."""
    key = work.partition.key
    with (work.root / "begun.txt").open("a") as begun:
        begun.write(f"{key} {os.getpid()}\n")
    if key == VICTIM and not (work.root / "killed").exists():
        time.sleep(PATIENCE)
    (work.folder / "drawing.txt").write_text(key)
    return Summary(samples=1)


STAGES = (Stage("draw", 1, draw, split_by=("style", "block")),)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A scheduler that already runs, with two worker processes that know nothing of our settings."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("where", ["this machine", "a running scheduler"])
def test_a_worker_killed_in_the_middle_costs_its_partition_alone(where: str, tmp_path: Path, scheduler: str) -> None:
    settings = Settings(run=RunSettings(workers=2, cluster=None if where == "this machine" else scheduler))
    plan = make_plan(STAGES, settings, Store(tmp_path), STYLES, BLOCKS, lambda name: "")
    jobs = {job.key: job for job in plan.resolve("draw")}
    function = functools.partial(execute, root=tmp_path)
    with Workers(settings.run, tmp_path) as workers:
        futures = workers.start(function, jobs)
        kill_the_victim(tmp_path)
        outcomes = list(workers.outcomes(function, jobs, futures))
    assert [outcome.error for outcome in outcomes] == [None] * 8
    begun = Counter(line.split()[0] for line in (tmp_path / "begun.txt").read_text().splitlines())
    assert begun == {key: 2 if key == VICTIM else 1 for key in jobs}
    again = make_plan(STAGES, settings, Store(tmp_path), STYLES, BLOCKS, lambda name: "")
    assert {step.state for step in again.steps.values()} == {"cached"}


def kill_the_victim(root: Path) -> None:
    """kill -9 the worker once it has begun the partition that waits for it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lines = (root / "begun.txt").read_text().splitlines() if (root / "begun.txt").exists() else []
        for line in lines:
            key, pid = line.split()
            if key == VICTIM:
                (root / "killed").touch()
                os.kill(int(pid), signal.SIGKILL)
                return
        time.sleep(0.05)
    raise AssertionError("the victim never began")


def say_limits(job: str) -> tuple[str | None, str | None]:
    return os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")


def test_workers_of_a_running_scheduler_get_the_threads_of_the_profile(scheduler: str) -> None:
    with Workers(RunSettings(cluster=scheduler, threads=3)) as workers:
        (outcome,) = workers.outcomes(say_limits, {"a": "a"}, workers.start(say_limits, {"a": "a"}))
    assert outcome.value[0] == "3"


def test_a_gpu_profile_is_refused_where_no_worker_offers_one(scheduler: str) -> None:
    with Workers(RunSettings(cluster=scheduler, device="cuda")) as workers:
        with pytest.raises(UserError, match="no worker offers a GPU") as caught:
            workers.client()
        assert "--resources GPU=1" in str(caught.value.hint)


def test_a_local_gpu_worker_owns_one_gpu_and_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with Workers(RunSettings(device="cuda", workers=2)) as workers:
        jobs = {str(number): str(number) for number in range(6)}
        seen = {outcome.value[1] for outcome in workers.outcomes(say_limits, jobs, workers.start(say_limits, jobs))}
        offered = [w["resources"] for w in workers.client().scheduler_info(n_workers=-1)["workers"].values()]
    assert seen <= {"4", "6"}
    assert offered == [{"GPU": 1.0}] * 2


def test_gpus_are_counted_without_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path) == ["0", "2", "10"]


def test_a_worker_that_does_not_see_the_data_root_is_refused(scheduler: str, tmp_path: Path) -> None:
    with (
        Workers(RunSettings(cluster=scheduler), tmp_path / "elsewhere") as workers,
        pytest.raises(UserError, match="does not see the data root"),
    ):
        workers.client()


def test_a_worker_with_other_code_is_refused(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "code_digest", lambda: "0" * 64)
    with (
        Workers(RunSettings(cluster=scheduler)) as workers,
        pytest.raises(UserError, match="has other code than this process"),
    ):
        workers.client()
    assert len(code_digest()) == 64


def test_a_worker_with_many_threads_is_refused() -> None:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
        Workers(RunSettings(cluster=cluster.scheduler_address)) as workers,
        pytest.raises(UserError, match="has 2 threads"),
    ):
        workers.client()


def test_every_cluster_file_loads_and_names_its_kind() -> None:
    kinds = {path.stem: read_cluster(path.stem).kind for path in (PROJECT / "configs" / "clusters").glob("*.yaml")}
    assert kinds == {"local": "local", "address": "address", "slurm": "slurm"}


def test_an_unreachable_scheduler_is_said_at_once() -> None:
    with pytest.raises(UserError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        reachable("tcp://127.0.0.1:9")


def test_an_unknown_cluster_is_said() -> None:
    with pytest.raises(UserError, match="there is no cluster 'nowhere'"):
        read_cluster("nowhere")


def test_a_mistake_in_a_cluster_file_names_file_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("kind: local\nworker: 3\n")
    monkeypatch.setattr(clusters, "CLUSTERS", tmp_path)
    with pytest.raises(UserError, match=r"mine\.yaml, local\.worker: extra inputs are not permitted"):
        read_cluster("mine")


def test_slurm_without_its_package_or_its_commands_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "dask_jobqueue", None)
        for loaded in ("dask_jobqueue.slurm", "flows.run.slurm"):
            without.delitem(sys.modules, loaded, raising=False)
        with pytest.raises(UserError, match="needs the package dask-jobqueue") as caught:
            start_cluster(read_cluster("slurm"), RunSettings())
        assert caught.value.hint == "pip install 'stillroom[slurm]'"
    with pytest.raises(UserError, match="there is no sbatch"):
        start_cluster(read_cluster("slurm"), RunSettings())


def test_a_slurm_queue_gives_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`sbatch` copies the job's script, as the real one does, and runs it; everything else is as on a cluster."""
    queue = StandIn(tmp_path / "slurm", monkeypatch)
    monkeypatch.setattr(clusters, "CLUSTERS", tmp_path)
    options = {"queue": "gpu", "memory": "1GB", "walltime": "00:10:00", "interface": "lo"}
    cluster = {"kind": "slurm", "jobs": 1, "gpu": True, "options": options}
    (tmp_path / "queue.yaml").write_text(json.dumps(cluster))
    with Workers(RunSettings(cluster="queue", device="cuda"), tmp_path) as workers:
        (outcome,) = workers.outcomes(say_limits, {"a": "a"}, workers.start(say_limits, {"a": "a"}))
    assert outcome.value[0] == "1"
    assert [queue.state(job) for job in queue.jobs()] == ["CANCELLED|None"]
