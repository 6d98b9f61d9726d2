"""Fan the partitions of a stage out over worker processes, and survive the loss of one.

The engine is `distributed`: processes of this machine with one torch thread each, or a cluster
(flows/running/clusters.py). Models stay resident, since `models.zoo.load` keeps them per process and the workers
outlive a stage.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from data_catalog.errors import UserError
from data_catalog.settings import RunSettings
from flows.running.clusters import (
    LocalCluster,
    check_workers,
    read_cluster,
    start_cluster,
    thread_limits,
    wait_for_workers,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one job: its value, or the error that ended it."""

    key: str
    value: Any = None
    error: BaseException | None = None


class Workers:
    """A pool that starts with its first job and ends with the `with` block."""

    def __init__(self, run: RunSettings, root: Path | None = None) -> None:
        """`root` is the data root that workers on other machines are asked for; None asks nothing."""
        self.run, self.root = run, root
        self.spec = read_cluster(run.cluster)
        self._client: Any = None
        self._cluster: Any = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, cluster = self._client, self._cluster
        self._client = self._cluster = None
        if client is not None:
            client.close()
        if cluster is not None:
            _close(cluster)

    def client(self) -> Any:
        """The `distributed` client; starts the worker processes on first use."""
        if self._client is None:
            import dask
            import distributed  # noqa: F401 - sets up its loggers

            _quieten_distributed()
            # A job queued behind another on a worker that dies would share the blame; queue on the scheduler.
            # A job that lost its worker twice is blamed, and then tried once more by itself.
            dask.config.set(
                {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 1}
            )
            self._cluster, self._client = start_cluster(self.spec, self.run)
            self._make_ready()
        return self._client

    def _make_ready(self) -> None:
        """Prepare the workers that are there and, by the plugin, those that will come."""
        if not self._is_local:
            if self._cluster is not None:
                wait_for_workers(self._client, f"the cluster {self.run.cluster}")
            check_workers(self._client, self.root, self.run.device)
        from flows.running.worker_setup import WorkerSetup

        setup = WorkerSetup(thread_limits(self.run), self.run.threads, own_gpus=self._needs_gpu and self._is_local)
        self._client.register_plugin(setup, name="stillroom")

    @property
    def _is_local(self) -> bool:
        return isinstance(self.spec, LocalCluster)

    @property
    def _needs_gpu(self) -> bool:
        return self.run.device.startswith("cuda")

    def start(self, function: Callable[[Any], Any], jobs: Mapping[str, Any]) -> dict[str, Any]:
        """Hand every job to the workers at once; returns futures. `function` is at the top of a module."""
        return {key: self._submit(function, job, f"{key}-{id(job):x}") for key, job in jobs.items()}

    def _submit(self, function: Callable[[Any], Any], job: Any, key: str) -> Any:
        """A future. Where `run.device` is a GPU, a worker takes as many jobs at once as it offers GPUs."""
        needs = {"GPU": 1} if self._needs_gpu else None
        return self.client().submit(function, job, key=key, pure=False, resources=needs)

    def outcomes(
        self, function: Callable[[Any], Any], jobs: Mapping[str, Any], futures: Mapping[str, Any]
    ) -> Iterator[Outcome]:
        """Outcomes as the jobs end. One failing job stops no other."""
        from distributed import KilledWorker, as_completed

        names = {future: key for key, future in futures.items()}
        blamed: list[str] = []
        with self.client().as_current():
            finished = as_completed(list(futures.values()))
        for future in finished:
            key = names[future]
            # .result() also raises what .wait() would pass over: a job whose workers were all killed.
            try:
                outcome = Outcome(key, future.result())
            except KilledWorker:
                blamed.append(key)
                continue
            except Exception as error:
                outcome = Outcome(key, error=error)
            future.release()
            yield outcome
        for key in blamed:
            yield self._alone(function, key, jobs[key])

    def _alone(self, function: Callable[[Any], Any], key: str, job: Any) -> Outcome:
        """One more try for a job that died with its workers, by itself: no neighbour can be the cause."""
        from distributed import KilledWorker

        log.warning("%s lost its worker again and again; trying it once more, alone", key)
        try:
            return Outcome(key, self._submit(function, job, f"{key}-alone").result())
        except KilledWorker:
            hint = "the process was killed each time: is there enough memory? fewer workers: --set run.workers=1"
            return Outcome(key, error=UserError(f"{key}: its worker process died each time", hint=hint))
        except Exception as error:
            return Outcome(key, error=error)


def _close(cluster: Any) -> None:
    """End the workers. All that they made is on the disk, so that one slow to go, on a busy machine, is killed."""
    # Only workers of this machine have a process here; a queue ends its own.
    pids = [getattr(worker, "pid", None) for worker in cluster.workers.values()]
    processes = [psutil.Process(pid) for pid in pids if pid and psutil.pid_exists(pid)]
    try:
        cluster.close()
    except TimeoutError:
        log.debug("the workers took too long to end")
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _quieten_distributed() -> None:
    """Its loggers set their own levels at import; what matters to a user comes back as a job's outcome."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
