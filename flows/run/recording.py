"""Record of a running flow: what MLflow, Prefect's pages and the list of last runs are told."""

import functools
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from data_catalog.config.disk_errors import no_space
from data_catalog.plan.plan import Plan
from data_catalog.plan.steps import Step
from data_catalog.store.store import full_disk, writing
from flows.ask.funnels import flat_funnels, funnel_metrics, read_funnels
from flows.mistakes import find_mistake
from flows.run.active import ActiveNote
from flows.run.history import RunNote, note_run
from flows.track.mlflow_runs import StageLog, Tracker
from flows.track.prefect_pages import (
    Mark,
    ProgressBar,
    Tally,
    show_funnels,
    show_work,
    show_work_elsewhere,
)
from tasks.gating.calibration import PLOT as CALIBRATION_PLOT
from tasks.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """Partitions of a stage as this run leaves them, and the seconds that it took."""

    name: str
    steps: list[Step]
    tally: Tally
    seconds: float


class Recording:
    """Record of one run. `active` is its note as a run in work."""

    def __init__(self, plan: Plan, tracker: Tracker, active: ActiveNote) -> None:
        self.plan, self.tracker, self.active = plan, tracker, active
        self.stage_seconds: dict[str, float] = {}
        self.outcome: dict[str, Any] = {}
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return round(time.monotonic() - self._started, 2)

    @contextmanager
    def stage(self, name: str) -> Iterator["StageRecording"]:
        """Record a stage that begins. It fails with the block."""
        self.active.at(name)
        with self.tracker.stage(name) as stage_log:
            yield StageRecording(self, stage_log)

    def funnels(self, gate: str) -> None:
        """Show how many samples each check left of each style, and the plots of the stage that chose among them."""
        funnels = [funnel for funnel in read_funnels(self.plan) if funnel["current"]]
        if funnels:
            show_funnels(flat_funnels(funnels))
            self.tracker.document({"funnels": funnels}, "funnels.json")
            self.tracker.metrics(self.tracker.run_id, funnel_metrics(funnels))
        for step in self.plan.by_stage[gate]:
            plot = self.plan.catalog.folder(step.entry) / CALIBRATION_PLOT if step.made and step.entry else None
            if plot and plot.is_file():
                self.tracker.file(plot, f"calibration/{step.partition.style}")

    @contextmanager
    def until_end(self) -> Iterator[None]:
        """Note how the block ended. On a full disk, its error says so."""
        root = self.plan.store.root
        try:
            yield
        except BaseException as error:
            try:
                self._end("failed" if isinstance(error, Exception) else "cancelled")
            except Exception as second:  # the first error matters more
                log.warning("the end of the run could not be noted: %s", second)
            full = None if find_mistake(error) else full_disk(root, error)
            if full is not None:
                raise no_space(full) from error
            raise
        with writing(root):
            self._end("completed")

    def _end(self, state: str) -> None:
        note = self.note(state)
        note_run(self.plan.store.root, note)
        self.tracker.result({"seconds": note.seconds})

    def note(self, state: str) -> RunNote:
        """Return the note of this run for the list of last runs: enough to try again what failed in it."""
        run, steps = self.active.run, self.plan.steps.values()
        return RunNote(
            flow=run.flow,
            profile=run.profile,
            state=state,
            seconds=self.seconds,
            stage=None if state == "completed" else run.stage,
            stage_seconds=self.stage_seconds,
            outcome=self.outcome,
            overrides=run.overrides,
            parameters=run.parameters,
            failed={step.key: first_line(step.note) for step in steps if step.state == "failed"},
            blocked=[step.key for step in steps if step.state == "blocked"],
        )


class StageRecording:
    """Record of a stage that runs: its child run in MLflow, its task runs and progress on Prefect's pages."""

    def __init__(self, recording: Recording, stage_log: StageLog) -> None:
        self.recording, self.name = recording, stage_log.stage
        self._log, self._bar = stage_log, ProgressBar(stage_log.stage)

    def work(self, name: str, work: Callable[[Mark], Tally], since: float | None) -> None:
        """Do a piece of the work as a task run of this name. since: when other processes got it; else None."""
        if since is None:
            show_work(self.name, name, functools.partial(work, lambda span: None))
        else:
            show_work_elsewhere(self.name, name, since, work)

    def hear(self, progress: Progress) -> None:
        """Pass on a report of a stage that runs in this process."""
        self._log.hear(progress)
        if progress.total:
            self._bar.update(progress.step, progress.total, progress.until)

    def advance(self, done: int, jobs: int) -> None:
        """Show how many of the jobs have ended."""
        self._bar.update(done, jobs)

    def finish(self, result: StageResult) -> None:
        """Log counts and seconds of the stage, and the address of each partition that is made."""
        self.recording.stage_seconds[self.name] = result.seconds
        catalog, root = self.recording.plan.catalog, self.recording.plan.store.root
        tally, made = result.tally, [step.entry for step in result.steps if step.made and step.entry]
        samples, rejected = sum(e.samples for e in made), sum(e.rejected for e in made)
        measured = {"seconds": result.seconds, "yield": samples / max(samples + rejected, 1)}
        counts: dict[str, float] = {
            "partitions": len(result.steps),
            "partitions_run": tally.made,
            "partitions_cached": tally.cached,
            "partitions_failed": tally.failed + tally.blocked,
            "samples": samples,
            "rejected": rejected,
        }
        # Addresses are relative to the data root, which may be moved.
        records = [(catalog.read(e), catalog.folder(e).relative_to(root).as_posix()) for e in made]
        self._log.summary(measured, counts, records)


def first_line(message: str) -> str:
    """Return the first line of an error's text."""
    return message.strip().partition("\n")[0]
