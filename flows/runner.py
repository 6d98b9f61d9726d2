"""Fan the partitions of a stage out over worker processes, and survive the loss of one.

The engine is `distributed`: processes of this machine with one torch thread each, or a scheduler that already
runs. Models stay resident, since `models.zoo.load` keeps them per process and the workers outlive a stage.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml

from data_catalog.errors import UserError
from data_catalog.places import PROJECT
from data_catalog.settings import RunSettings

log = logging.getLogger(__name__)

CLUSTERS = PROJECT / "configs" / "clusters"


@dataclass(frozen=True)
class Outcome:
    """What became of one job: its value, or the error that ended it."""

    key: str
    value: Any = None
    error: BaseException | None = None


class Workers:
    """A pool that starts with its first job and ends with the `with` block."""

    def __init__(self, run: RunSettings) -> None:
        self.run = run
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
            from distributed import Client

            _quieten_distributed()
            # A job queued behind another on a worker that dies would share the blame; queue on the scheduler.
            # A job that lost its worker twice is blamed, and then tried once more by itself.
            dask.config.set(
                {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 1}
            )
            if self.run.cluster:
                address = scheduler_address(self.run.cluster)
                self._client = Client(address, set_as_default=False)
            else:
                self._cluster = self._local_cluster()
                self._client = Client(self._cluster, set_as_default=False)
        return self._client

    def _local_cluster(self) -> Any:
        from distributed import LocalCluster

        threads = str(self.run.threads)
        return LocalCluster(
            n_workers=min(self.run.workers, os.cpu_count() or 1),
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
            env={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
        )

    def start(self, function: Callable[[Any], Any], jobs: Mapping[str, Any]) -> dict[str, Any]:
        """Hand every job to the workers at once; returns futures. `function` is at the top of a module."""
        client = self.client()
        return {key: client.submit(function, job, key=f"{key}-{id(job):x}", pure=False) for key, job in jobs.items()}

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
            return Outcome(key, self.client().submit(function, job, key=f"{key}-alone", pure=False).result())
        except KilledWorker:
            hint = "the process was killed each time: is there enough memory? fewer workers: --set run.workers=1"
            return Outcome(key, error=UserError(f"{key}: its worker process died each time", hint=hint))
        except Exception as error:
            return Outcome(key, error=error)


def _close(cluster: Any) -> None:
    """End the workers. All that they made is on the disk, so that one slow to go, on a busy machine, is killed."""
    processes = [psutil.Process(nanny.pid) for nanny in cluster.workers.values() if psutil.pid_exists(nanny.pid or 0)]
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


def scheduler_address(cluster: str) -> str:
    """The address of a running scheduler: as given (tcp://host:port), or of configs/clusters/<name>.yaml."""
    address = cluster
    if "://" not in cluster:
        path = CLUSTERS / f"{cluster}.yaml"
        known = ", ".join(sorted(p.stem for p in CLUSTERS.glob("*.yaml"))) or "none"
        if not path.is_file():
            raise UserError(f"run.cluster: there is no cluster '{cluster}'", clusters=known, hint="or tcp://host:port")
        address = str(yaml.safe_load(path.read_text(encoding="utf-8"))["scheduler"])
    parts = urlsplit(address)
    # Distributed itself would wait half a minute before it says that nobody answers.
    try:
        socket.create_connection((parts.hostname or "", parts.port or 8786), timeout=3).close()
    except OSError as error:
        raise UserError(f"no scheduler answers at {address}", found=error, hint="start it: dask scheduler") from None
    return address
