"""Jobs of a stage in pieces of work: over the workers, style by style, or one by one in this process."""

import functools
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_catalog.store.execute import Job, execute
from data_catalog.store.record import Record
from data_catalog.store.stage import Stage
from flows.run.runner import Outcome, Workers


def execute_elsewhere(job: Job, root: Path) -> tuple[Record, str, float]:
    """Execute a job on a worker. Returns its record, the worker, and when it ended in Unix seconds."""
    return execute(job, root), f"{socket.gethostname()}:{os.getpid()}", time.time()


@dataclass(frozen=True)
class Piece:
    """Jobs that are awaited together. The work is done, or awaited, while `outcomes` is read.

    style: the style of the jobs; None stands for all partitions of the stage.  since: when other processes were given
    the jobs, in Unix seconds; None for work of this process.
    """

    name: str
    style: str | None
    outcomes: Iterator[Outcome]
    since: float | None = None


class FanOut:
    """Hands out the jobs of a stage. A job that fails stops no other."""

    def __init__(self, workers: Workers, root: Path) -> None:
        self.workers = workers
        self._execute = functools.partial(execute, root=root)
        self._execute_elsewhere = functools.partial(execute_elsewhere, root=root)

    def pieces(self, stage: Stage, jobs: Mapping[str, Job]) -> Iterator[Piece]:
        """Yield the pieces of work that the jobs come to; a stage without jobs is one piece without outcomes."""
        if not jobs:
            yield Piece(stage.name, None, iter(()))
        elif not stage.split_by or stage.resumes:
            # One partition, or a training: this process has all threads, and hears the progress.
            for job in jobs.values():
                yield Piece(stage.name, job.partition.style, self._here(job))
        else:
            submitted, free = time.time(), dict[str, float]()  # free: worker, and since when it has no job
            futures = self.workers.start(self._execute_elsewhere, jobs)  # all jobs at once
            for style in dict.fromkeys(job.partition.style for job in jobs.values()):
                mine = {key: job for key, job in jobs.items() if job.partition.style == style}
                name = f"{stage.name} {style}" if style else stage.name
                yield Piece(name, style, self._there(mine, futures, submitted, free), submitted)

    def _here(self, job: Job) -> Iterator[Outcome]:
        try:
            outcome = Outcome(job.key, self._execute(job))
        except Exception as error:
            outcome = Outcome(job.key, error=error)
        yield outcome

    def _there(
        self, jobs: Mapping[str, Job], futures: Mapping[str, Any], submitted: float, free: dict[str, float]
    ) -> Iterator[Outcome]:
        """Yield outcomes with their spans. A worker begins when it is free: it imports what its first job needs."""
        for outcome in self.workers.outcomes(self._execute_elsewhere, jobs, {key: futures[key] for key in jobs}):
            if outcome.error is not None:
                yield outcome
                continue
            record, worker, ended = outcome.value
            span = min(free.get(worker, submitted), ended), ended
            free[worker] = ended
            yield replace(outcome, value=record, span=span)
