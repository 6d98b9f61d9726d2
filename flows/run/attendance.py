"""Attendance of a cluster's workers. Without any, jobs are submitted again, and at last the run ends."""

import logging
import math
import time
from typing import TYPE_CHECKING, Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.config.settings import RunSettings
from flows.run.clusters import AddressCluster, Cluster, SlurmCluster, cluster_file

if TYPE_CHECKING:
    from flows.run.slurm import Report

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # seconds between two looks at the scheduler's workers
QUEUE_SECONDS = 15.0  # seconds between two questions to the queue, while there is no worker
TELL_SECONDS = 60.0  # seconds between two log lines, while there is no worker
KEPT = "then run the same command again: finished partitions are kept"


class NoWorkersError(UserError):
    """Error of a run whose cluster has no worker and will get none."""


class Attendance:
    """Watch over the workers of a run. It counts only time without any worker in which work is waited for."""

    def __init__(self, client: Any, cluster: Any, spec: Cluster, run: RunSettings) -> None:
        """Watch the workers of `cluster`, the `distributed` cluster of `spec`; None for an external scheduler."""
        self._client, self._cluster, self._spec = client, cluster, spec
        self._needs_gpu = run.device.startswith("cuda")
        self._place = f"the cluster {run.cluster}" if run.cluster else "this machine"
        self._file = shown_path(cluster_file(run.cluster or "local"))
        self.count_anew()

    def count_anew(self) -> None:
        """Reset the counters: a partition is finished, or a stage begins."""
        self._asked_again = 0
        self._note_present()

    def _note_present(self) -> None:
        self._since: float | None = None
        self._queue_asked = self._told = -math.inf
        self._words = ""

    def await_first(self) -> None:
        """Wait for a first worker, including one that will be refused."""
        while not self._workers():
            self.look()
            time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Look for a worker that can take a partition. Raises NoWorkersError if there was none for too long."""
        if any(known["resources"].get("GPU") or not self._needs_gpu for known in self._workers()):
            self._note_present()
            return
        now = time.monotonic()
        if self._since is None:
            self._since = now
        minutes = (now - self._since) / 60
        if minutes >= self._spec.patience:
            self._ask_queue()
            raise self._error(f"{self._place} had no worker for {self._spec.patience:g} min")
        if now - self._queue_asked >= QUEUE_SECONDS:
            self._queue_asked = now
            if self._ask_queue():
                self._ask_again()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            words = f" ({self._words})" if self._words else ""
            log.warning(
                "%s has no worker%s; the run ends if none comes within %.3g min",
                self._place,
                words,
                self._spec.patience - minutes,
            )

    def _workers(self) -> list[dict[str, Any]]:
        return list(self._client.scheduler_info(n_workers=-1)["workers"].values())

    def _ask_queue(self) -> bool:
        """Note the queue's report. Returns whether all jobs have ended."""
        if not isinstance(self._spec, SlurmCluster):
            return False
        report: Report = self._cluster.report()
        self._words = report.words
        return report.ended

    def _ask_again(self) -> None:
        """Submit jobs in place of ended ones, or end the run after too many times."""
        assert isinstance(self._spec, SlurmCluster)
        if self._asked_again == self._spec.again:
            times = f"{self._asked_again} times asked for again, with no partition finished meanwhile"
            raise self._error(f"all jobs of {self._place} ended: {times}")
        self._asked_again += 1
        self._told = time.monotonic()
        log.warning(
            "all jobs of %s ended (%s); submitting them again, %d of %d times",
            self._place,
            self._words,
            self._asked_again,
            self._spec.again,
        )
        self._cluster.submit(self._spec.jobs)

    def _error(self, message: str) -> NoWorkersError:
        """Return the error that ends the run, with the queue's report and a hint."""
        found = {"queue": self._words} if self._words else {}
        return NoWorkersError(message, hint=f"{self._remedy()}; {KEPT}", **found)

    def _remedy(self) -> str:
        if isinstance(self._spec, SlurmCluster):
            return f"find out why (squeue, the output of the jobs); options, patience and again stand in {self._file}"
        if isinstance(self._spec, AddressCluster):
            return f"dask worker {self._spec.scheduler} --nthreads 1"
        return "free memory, or fewer workers: --set run.workers=1"
