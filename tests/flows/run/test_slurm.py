"""Runs on a real SLURM of one node: jobs that end are asked for again, and what the queue says is told."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from data_catalog.config.settings import RunSettings
from flows.run import attendance, clusters, runner
from flows.run.attendance import NoWorkersError
from flows.run.runner import Workers
from tasks.processes import free_port
from tests.flows.run.test_attendance import nap, outlast_the_job_once
from tests.worlds.commands import until

pytestmark = pytest.mark.slow

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ReturnToService=2
NodeName={node} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """A SLURM of two CPUs in a folder of its own; its daemons end with the tests."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    missing = [name for name in COMMANDS if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"SLURM is NOT tested: no {', '.join(missing)}; on Debian: apt-get install slurm-wlm munge")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)  # munged insists on it
        for made in ("state", "spool"):
            (folder / made).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)
        patch.setenv("PATH", path)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        node = socket.gethostname().partition(".")[0]
        text = CONFIGURATION.format(node=node, ports=(free_port(), free_port()), user=getpass.getuser(), folder=folder)
        (folder / "slurm.conf").write_text(text)
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid", "seed-file": "munged.seed"}
        options = [f"--{option}={folder / file}" for option, file in files.items()]
        stack.enter_context(daemon(folder, "munged", "--foreground", "--force", *options))
        until((folder / "munge.sock").exists, "munged")
        stack.enter_context(daemon(folder, "slurmctld", "-D"))
        stack.enter_context(daemon(folder, "slurmd", "-D"))
        until(lambda: "idle" in ask("sinfo", "--noheader"), "an idle node")
        yield folder
        ask("scancel", f"--user={getpass.getuser()}")
        until(lambda: not ask("squeue", "--noheader"), "the end of the jobs")


@contextmanager
def daemon(folder: Path, *command: str) -> Iterator[None]:
    """A daemon in the foreground of a process of ours. It ends, with all that it started."""
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in family:
            if child.is_running():
                child.kill()


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout


def jobs(*options: str) -> list[str]:
    return ask("squeue", "--noheader", "--format=%i", *options).split()


@pytest.fixture
def describe(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RunSettings]]:
    """Settings of a run on this SLURM. No job is left in the queue afterwards, and the partition is up."""
    for name, seconds in {"LOOK_SECONDS": 0.5, "QUEUE_SECONDS": 2.0}.items():
        monkeypatch.setattr(attendance, name, seconds)
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(clusters, "CLUSTERS", tmp_path)

    def write(**fields: float) -> RunSettings:
        options = {"memory": "1GB", "walltime": "00:20:00", "interface": "lo", "log_directory": str(tmp_path)}
        (tmp_path / "real.yaml").write_text(json.dumps({"kind": "slurm", "jobs": 2, "options": options, **fields}))
        return RunSettings(cluster="real")

    ask("scontrol", "update", "PartitionName=main", "State=UP")
    yield write
    left = jobs("--states=PENDING,RUNNING")
    ask("scontrol", "update", "PartitionName=main", "State=UP")
    assert left == []
    until(lambda: not jobs(), "the end of the jobs")


def begun(folder: Path) -> int:
    path = folder / "begun"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_one_job_cancelled_of_two_is_survived(
    describe: Callable[..., RunSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {str(number): (str(tmp_path), 3.0) for number in range(6)}
    with Workers(describe()) as workers:
        futures = workers.start(nap, tasks)
        until(lambda: len(jobs("--states=RUNNING")) == 2 and begun(tmp_path) >= 2, "the jobs")
        ask("scancel", jobs()[0])
        outcomes = list(workers.outcomes(nap, tasks, futures))
    assert [outcome.value for outcome in outcomes] == ["rested"] * 6
    assert "submitting them again" not in caplog.text


def test_all_jobs_cancelled_are_asked_for_again_and_the_work_is_finished(
    describe: Callable[..., RunSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {str(number): (str(tmp_path), 2.0) for number in range(6)}
    with Workers(describe()) as workers:
        futures = workers.start(nap, tasks)
        until(lambda: begun(tmp_path) >= 2, "the begin of the work")
        ask("scancel", *jobs())
        outcomes = list(workers.outcomes(nap, tasks, futures))
    assert [outcome.value for outcome in outcomes] == ["rested"] * 6
    assert "CANCELLED); submitting them again, 1 of 3 times" in caplog.text


def test_a_job_at_its_wall_time_is_asked_for_again(
    describe: Callable[..., RunSettings], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = {"a": str(tmp_path)}
    with Workers(describe(jobs=1)) as workers:
        futures = workers.start(outlast_the_job_once, tasks)
        until(lambda: begun(tmp_path) == 1, "the begin of the work")
        ask("scontrol", "update", f"JobId={jobs()[0]}", "TimeLimit=1")  # a minute, the least that there is
        started = time.monotonic()
        (outcome,) = workers.outcomes(outlast_the_job_once, tasks, futures)
    assert outcome.value == "rested"
    assert time.monotonic() - started < 200
    assert "TIMEOUT (TimeLimit)); submitting them again, 1 of 3 times" in caplog.text


def test_a_queue_that_starts_nothing_more_ends_the_run_with_its_words(
    describe: Callable[..., RunSettings], tmp_path: Path
) -> None:
    tasks = {str(number): (str(tmp_path), 60.0) for number in range(2)}
    with Workers(describe(patience=0.3)) as workers:
        futures = workers.start(nap, tasks)
        until(lambda: begun(tmp_path) >= 1, "the begin of the work")
        ask("scontrol", "update", "PartitionName=main", "State=DOWN")
        ask("scancel", *jobs())
        started = time.monotonic()
        with pytest.raises(NoWorkersError, match=r"the cluster real had no worker for 0\.3 min") as caught:
            list(workers.outcomes(nap, tasks, futures))
        assert time.monotonic() - started < 60
    assert "PENDING (PartitionDown)" in caught.value.fields["queue"]
    assert "real.yaml" in str(caught.value.hint)


def test_held_jobs_end_a_run_before_its_first_worker(describe: Callable[..., RunSettings], slurm: Path) -> None:
    ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    with Workers(describe(patience=0.1)) as workers, pytest.raises(NoWorkersError) as caught:
        workers.client()
    assert "PENDING (PartitionDown)" in caught.value.fields["queue"]
