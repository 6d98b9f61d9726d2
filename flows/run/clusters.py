"""Clusters: files of configs/clusters, the `distributed` cluster of each, and the check of its workers.

A worker makes one partition at a time and keeps its models. It must have this code and see this data root.
"""

import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT, shown_path
from data_catalog.config.profiles import read_yaml_mapping
from data_catalog.config.settings import RunSettings
from data_catalog.plan.source import SourceReader

CLUSTERS = PROJECT / "configs" / "clusters"


class _Patient(BaseModel):
    """Setting of every kind: how long work may wait without any worker."""

    model_config = ConfigDict(extra="forbid")

    patience: float = Field(60, gt=0)  # minutes; then the run ends with an error


class LocalCluster(_Patient):
    """Processes of this machine."""

    kind: Literal["local"]
    workers: int | None = Field(None, ge=1)  # null: run.workers


class AddressCluster(_Patient):
    """External scheduler that already runs."""

    kind: Literal["address"]
    scheduler: str


class SlurmCluster(_Patient):
    """Jobs of a SLURM queue, one worker each. `options` go to `dask_jobqueue.SLURMCluster`."""

    kind: Literal["slurm"]
    jobs: int = Field(1, ge=1)
    gpu: bool = False  # each job's worker offers one GPU
    again: int = Field(3, ge=0)  # times that ended jobs are submitted again without a partition finished meanwhile
    options: dict[str, Any] = {}


Cluster = LocalCluster | AddressCluster | SlurmCluster
_ADAPTER: TypeAdapter[Cluster] = TypeAdapter(Annotated[Cluster, Field(discriminator="kind")])


def read_cluster(name: str | None) -> Cluster:
    """Return the cluster of a name in configs/clusters, of a scheduler's address, or (None) this machine."""
    if name is None:
        return LocalCluster(kind="local")
    if "://" in name:
        return AddressCluster(kind="address", scheduler=name)
    path = cluster_file(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CLUSTERS.glob("*.yaml"))) or "none"
        raise UserError(f"run.cluster: there is no cluster '{name}'", clusters=known, hint="or tcp://host:port")
    try:
        return _ADAPTER.validate_python(read_yaml_mapping(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{shown_path(path)}, {where}: {first['msg'].lower()}", found=repr(first["input"])) from None


def cluster_file(name: str) -> Path:
    """Return the file that describes a cluster."""
    return CLUSTERS / f"{name}.yaml"


def start_cluster(cluster: Cluster, run: RunSettings) -> tuple[Any, Any]:
    """Return (cluster, client); cluster is None for an external scheduler."""
    from distributed import Client

    if isinstance(cluster, AddressCluster):
        return None, Client(reachable(cluster.scheduler), set_as_default=False)
    made = _start_local(cluster, run) if isinstance(cluster, LocalCluster) else _make_queue(cluster)
    try:
        if isinstance(cluster, SlurmCluster):
            made.submit(cluster.jobs)
            if not made.job_ids:
                hint = "options in configs/clusters are those of dask_jobqueue.SLURMCluster"
                raise UserError("sbatch accepted no job", sbatch=made.refusal, hint=hint)
        return made, Client(made, set_as_default=False)
    except BaseException:
        made.close()  # no job stays in the queue
        raise


def _start_local(cluster: LocalCluster, run: RunSettings) -> Any:
    import distributed

    gpu = run.device.startswith("cuda")
    workers = cluster.workers or min(run.workers, os.cpu_count() or 1)
    with undisturbed():
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
            env=thread_limits(run),
            **({"resources": {"GPU": 1}} if gpu else {}),
        )


@contextmanager
def undisturbed() -> Iterator[None]:
    """Start threads and processes that Ctrl-C does not reach; a signal that comes meanwhile is raised afterwards.

    A terminal sends Ctrl-C to the workers as well. `distributed` would start others in their place, and wait for them;
    and it cannot close a cluster whose workers are still starting.
    """
    late: list[int] = []
    ours = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.signal(number, lambda number, _: late.append(number)) for number in ours}
    resource_tracker.ensure_running()  # else the thread that starts it would let the signal through
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if late:
            signal.raise_signal(late[0])


def _make_queue(cluster: SlurmCluster) -> Any:
    try:
        from flows.run.slurm import SlurmQueue
    except ModuleNotFoundError:
        hint = "pip install 'stillroom[slurm]'"
        raise UserError("a cluster of kind slurm needs the package dask-jobqueue", hint=hint) from None
    if shutil.which("sbatch") is None:
        raise UserError("there is no sbatch on this machine", hint="start the build where SLURM's commands are")
    extra = ["--resources", "GPU=1"] if cluster.gpu else []
    options = {
        "cores": 1,
        "processes": 1,
        "memory": "4GB",
        "worker_extra_args": extra,
        "scheduler_options": {"dashboard_address": ":0"},
        **cluster.options,
    }
    try:
        return SlurmQueue(**options)
    except (TypeError, ValueError) as error:
        raise UserError("configs/clusters: SLURMCluster rejects these options", cause=error) from None


def thread_limits(run: RunSettings) -> dict[str, str]:
    """Environment that holds a worker's libraries to `run.threads`: sums depend on their number."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(run.threads))


def reachable(address: str) -> str:
    """Return the address if it answers: distributed itself would wait half a minute."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 8786), timeout=3).close()
    except OSError as error:
        raise UserError(f"no scheduler answers at {address}", found=error, hint="start it: dask scheduler") from None
    return address


def check_workers(client: Any, root: Path | None, device: str) -> None:
    """Refuse workers with other code, without the data root or without the device, before any work is submitted."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for address, known in workers.items():
        if known["nthreads"] > 1:
            raise UserError(
                f"the worker {address} has {known['nthreads']} threads",
                expected="1: a worker keeps one model and works on one partition at a time",
                hint="dask worker ADDRESS --nworkers 4 --nthreads 1",
            )
    if device.startswith("cuda") and not any(known["resources"].get("GPU") for known in workers.values()):
        hint = "dask worker ADDRESS --nthreads 1 --resources GPU=1"
        raise UserError(f"run.device is {device}, and no worker offers a GPU", workers=len(workers), hint=hint)
    own = code_digest()
    for address, (digest, sees_root) in client.run(look_around, root and str(root)).items():
        if not sees_root:
            hint = "a data root that all machines mount: STILLROOM_DATA"
            raise UserError(f"the worker {address} does not see the data root", root=root, hint=hint)
        if digest != own:
            raise UserError(
                f"the worker {address} has other code than this process",
                expected=own[:12],
                found=digest[:12],
                hint="the same commit on every machine, and restart the workers",
            )


def look_around(root: str | None) -> tuple[str, bool]:
    """Return a worker's digest of the code, and whether it sees the data root."""
    return code_digest(), root is None or Path(root).is_dir()


def code_digest() -> str:
    """Digest of the code behind all stages, as this process has it."""
    return SourceReader(PROJECT).digest(["tasks.stages"]).digest
