"""Jobs of a stage in pieces of work: over the workers, style by style, or one by one in this process."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.store.execute import Job, execute
from data_catalog.store.stage import Stage
from flows.run.runner import Outcome, Workers


@dataclass(frozen=True)
class Piece:
    """Jobs that are awaited together. The work is done, or awaited, while `outcomes` is read.

    style: the style of the jobs; None stands for all partitions of the stage.
    """

    name: str
    style: str | None
    outcomes: Iterator[Outcome]


class FanOut:
    """Hands out the jobs of a stage. A job that fails stops no other."""

    def __init__(self, workers: Workers, root: Path) -> None:
        self.workers = workers
        self._execute = functools.partial(execute, root=root)

    def pieces(self, stage: Stage, jobs: Mapping[str, Job]) -> Iterator[Piece]:
        """Yield the pieces of work that the jobs come to; a stage without jobs is one piece without outcomes."""
        if not jobs:
            yield Piece(stage.name, None, iter(()))
        elif not stage.split_by or stage.resumes:
            # One partition, or a training: this process has all threads, and hears the progress.
            for job in jobs.values():
                yield Piece(stage.name, job.partition.style, self._here(job))
        else:
            futures = self.workers.start(self._execute, jobs)  # all jobs at once
            for style in dict.fromkeys(job.partition.style for job in jobs.values()):
                mine = {key: job for key, job in jobs.items() if job.partition.style == style}
                yield Piece(f"{stage.name} {style}" if style else stage.name, style, self._there(mine, futures))

    def _here(self, job: Job) -> Iterator[Outcome]:
        try:
            outcome = Outcome(job.key, self._execute(job))
        except Exception as error:
            outcome = Outcome(job.key, error=error)
        yield outcome

    def _there(self, jobs: Mapping[str, Job], futures: Mapping[str, Any]) -> Iterator[Outcome]:
        return self.workers.outcomes(self._execute, jobs, {key: futures[key] for key in jobs})
