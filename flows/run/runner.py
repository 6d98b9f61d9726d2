"""Fan-out of a stage's partitions over worker processes; it survives the loss of a worker.

The engine is `distributed`: processes of this machine with one torch thread each, or a cluster
(flows/run/clusters.py). `models.zoo.zoo.load` keeps models per process, and workers outlive a stage.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any
from uuid import uuid4

import psutil

from data_catalog.config.errors import UserError
from data_catalog.config.settings import RunSettings
from flows.run.attendance import LOOK_SECONDS, Attendance, NoWorkersError
from flows.run.clusters import (
    AddressCluster,
    LocalCluster,
    check_workers,
    read_cluster,
    start_cluster,
    thread_limits,
)
from flows.run.signals import ending_by_signal

log = logging.getLogger(__name__)

VALUE_SECONDS = 60.0  # seconds to wait for a finished job's value before checking on its worker


@dataclass(frozen=True)
class Outcome:
    """Outcome of one job: its value, or the error that ended it; and when a worker was at it, where that is known."""

    key: str
    value: Any = None
    error: BaseException | None = None
    span: tuple[float, float] | None = None  # Unix seconds


class Workers:
    """Pool of workers that starts with its first job and ends with the `with` block."""

    def __init__(self, run: RunSettings, root: Path | None = None) -> None:
        """Prepare a pool. `root` is the data root that workers on other machines must see; None skips the check."""
        self.run, self.root = run, root
        self.spec = read_cluster(run.cluster)
        self._client: Any = None
        self._cluster: Any = None
        self._signals = ExitStack()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, cluster = self._client, self._cluster
        self._client = self._cluster = None
        with self._signals:
            try:
                if client is not None:
                    client.close()
            finally:
                if cluster is not None:
                    _close(cluster)

    def client(self) -> Any:
        """The `distributed` client; starts the worker processes on first use."""
        if self._client is None:
            import dask
            import distributed  # noqa: F401 - sets up its loggers

            _quieten_distributed()
            # A job queued behind another on a dying worker would share the blame: queue on the scheduler.
            # A job that lost its worker twice is blamed, and then tried once more alone.
            dask.config.set(
                {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 1}
            )
            self._signals.enter_context(ending_by_signal())
            self._cluster, self._client = start_cluster(self.spec, self.run)
            self._attendance = Attendance(self._client, self._cluster, self.spec, self.run)
            self._make_ready()
        return self._client

    def _make_ready(self) -> None:
        """Prepare the present workers and, by the plugin, later ones."""
        if not self._is_local:
            self._attendance.await_first()
            check_workers(self._client, self.root, self.run.device)
        from flows.run.worker_setup import WorkerSetup

        setup = WorkerSetup(thread_limits(self.run), self.run.threads, own_gpus=self._needs_gpu and self._is_local)
        self._client.register_plugin(setup, name="stillroom")

    @property
    def _is_local(self) -> bool:
        return isinstance(self.spec, LocalCluster)

    @property
    def _needs_gpu(self) -> bool:
        return self.run.device.startswith("cuda")

    def start(self, function: Callable[[Any], Any], jobs: Mapping[str, Any]) -> dict[str, Any]:
        """Submit every job at once; returns futures. `function` is at the top of a module."""
        # One group of keys: only a large group is queued on the scheduler, and not on the workers.
        group = f"jobs-{uuid4().hex}"
        keys = [(group, key) for key in jobs]
        client, needs = self.client(), self._needs()
        return dict(zip(jobs, client.map(function, jobs.values(), key=keys, pure=False, resources=needs), strict=True))

    def _needs(self) -> dict[str, int] | None:
        """Return the resources of a job. Only at an address can there be workers with and without a GPU.

        A job that names a resource is queued on a worker, and shares the blame for jobs before it.
        """
        return {"GPU": 1} if self._needs_gpu and isinstance(self.spec, AddressCluster) else None

    def outcomes(
        self, function: Callable[[Any], Any], jobs: Mapping[str, Any], futures: Mapping[str, Any]
    ) -> Iterator[Outcome]:
        """Yield outcomes as the jobs end. A failing job stops no other."""
        from distributed import KilledWorker

        names = {future: key for key, future in futures.items()}
        blamed: list[str] = []
        self.client()
        self._attendance.count_anew()
        for future in self._as_they_end(names):
            key = names[future]
            # ._value() also raises for a job whose workers were all killed, which a plain wait would miss.
            try:
                outcome = Outcome(key, self._value(future))
            except KilledWorker:
                blamed.append(key)
                continue
            except NoWorkersError:
                raise
            except Exception as error:
                outcome = Outcome(key, error=error)
            future.release()
            self._attendance.count_anew()
            yield outcome
        for key in blamed:
            yield self._alone(function, key, jobs[key])

    def _as_they_end(self, futures: Collection[Any]) -> Iterator[Any]:
        """Yield futures as their jobs end, for as long as there are workers."""
        ended: SimpleQueue[Any] = SimpleQueue()
        for future in futures:
            future.add_done_callback(ended.put)
        for _ in futures:
            yield self._next(ended)

    def _next(self, ended: SimpleQueue[Any]) -> Any:
        while True:
            with suppress(Empty):
                return ended.get(timeout=LOOK_SECONDS)
            self._attendance.look()

    def _value(self, future: Any) -> Any:
        """Return the value of a finished job. If its worker is gone meanwhile, the job runs again first."""
        while future.status != "error":
            with suppress(TimeoutError):
                return future.result(timeout=VALUE_SECONDS)
            self._attendance.look()
        return future.result()

    def _alone(self, function: Callable[[Any], Any], key: str, job: Any) -> Outcome:
        """Run a job that died with its workers once more, alone: then no other job can be the cause."""
        from distributed import KilledWorker

        log.warning("%s lost its worker repeatedly; trying it once more, alone", key)
        (future,) = self._as_they_end([self.start(function, {key: job})[key]])
        try:
            return Outcome(key, self._value(future))
        except KilledWorker:
            remedy = "fewer workers: --set run.workers=1" if self._is_local else "is a job's walltime long enough?"
            hint = f"the process was killed each time: is there enough memory? {remedy}"
            return Outcome(key, error=UserError(f"{key}: its worker process died each time", hint=hint))
        except NoWorkersError:
            raise
        except Exception as error:
            return Outcome(key, error=error)


def _close(cluster: Any) -> None:
    """End the workers. All results are on the disk, so a slow worker is killed."""
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
    """Lower the levels that distributed's loggers set at import; failures come back as a job's outcome."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
