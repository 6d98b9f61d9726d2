"""Run of a flow: the plan, then the missing work of each stage, reported to MLflow and Prefect."""

import functools
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import data_root
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.plan.plan import Plan
from data_catalog.plan.steps import Step
from data_catalog.store.catalog import Entry
from data_catalog.store.execute import Job, execute
from data_catalog.store.stage import Stage
from data_catalog.store.store import FOLDER_CHARS, check_writable, disk_is_full, no_space, writing
from flows.ask.funnels import flat_funnels, funnel_metrics, read_funnels
from flows.ask.plan import PlanShape, open_plan, stage_rows
from flows.mistakes import MISTAKES
from flows.run.active import ActiveNote
from flows.run.history import RunNote, note_run
from flows.run.lifecycle import tracked
from flows.run.runner import Outcome, Workers
from flows.track.mlflow_runs import StageLog, Tracker
from flows.track.prefect_pages import (
    ProgressBar,
    Tally,
    log_plainly,
    show_funnels,
    show_plan,
    show_work,
)
from tasks.gating.calibration import PLOT as CALIBRATION_PLOT
from tasks.progress import Progress, listening

log = logging.getLogger(__name__)

FAILURES_SHOWN = 10
ASKING = ("run", "maybe")  # states of a step that is still to be made


@dataclass
class StageResult:
    """Result of a stage in this run."""

    name: str
    steps: list[Step]
    tally: Tally
    seconds: float


class FlowRun:
    """State of a running flow. A flow calls `stage` for each of its stages, in order.

    `only`: the partitions that this run may make, as keys or as folders below the store; None for all.
    """

    def __init__(
        self,
        flow: str,
        root: Path,
        plan: Plan,
        tracker: Tracker,
        workers: Workers,
        only: Collection[str] | None = None,
        active: ActiveNote | None = None,
    ) -> None:
        self.flow, self.root, self.plan, self.tracker, self.workers = flow, root, plan, tracker, workers
        self.settings = plan.settings
        self.only = None if only is None else frozenset(only)
        self.results: dict[str, StageResult] = {}
        self.outcome: dict[str, Any] = {}
        self.active = active
        self.at: str | None = None  # the current stage, or the last one
        self._started = time.monotonic()

    def stage(self, name: str) -> StageResult:
        """Make the missing partitions of a stage. A failing partition stops only those that depend on it."""
        started = time.monotonic()
        self.at = name
        if self.active is not None:
            self.active.at(name)
        steps = self.plan.by_stage[name]
        jobs = [job for job in self.plan.resolve(name) if self._may_make(job)]
        before = {step.key for step in steps if step.state == "cached"}
        with self.tracker.stage(name) as stage_log:
            self._carry_out(name, jobs, stage_log)
            self.plan.save()
            tally = tally_steps(steps, before)
            earlier = self.results[name].seconds if name in self.results else 0.0
            seconds = round(earlier + time.monotonic() - started, 2)
            self.results[name] = StageResult(name, steps, tally, seconds)
            self._log_stage(self.results[name], stage_log)
        log.info("%-10s %s (%.1f s)", name, tally.text, seconds)
        return self.results[name]

    def top_up(self, *names: str) -> None:
        """Run these stages again while the last one asks for further attempts and more are made."""
        made = -1
        while any(self._waits_for_attempts(step) for step in self.plan.by_stage[names[-1]]):
            before, made = made, sum(step.made for name in names for step in self.plan.by_stage[name])
            if made == before:
                break  # this run may not make them
            for name in names:
                self.stage(name)
        self._tell_funnels()

    def _tell_funnels(self) -> None:
        """Report the yield funnels of the styles on the pages of Prefect and MLflow."""
        funnels = [funnel for funnel in read_funnels(self.plan) if funnel["current"]]
        if funnels:
            show_funnels(flat_funnels(funnels))
            self.tracker.document({"funnels": funnels}, "funnels.json")
            self.tracker.metrics(self.tracker.run_id, funnel_metrics(funnels))
        for step in self.plan.by_stage["select"]:
            plot = self.plan.catalog.folder(step.entry) / CALIBRATION_PLOT if step.made and step.entry else None
            if plot and plot.is_file():
                self.tracker.file(plot, f"calibration/{step.partition.style}")

    def _waits_for_attempts(self, step: Step) -> bool:
        needs = self._declaration(step.partition.stage).needs
        missing = [up for need in needs for up in self.plan.upstream(step, need.stage) if not up.made]
        return step.state in ASKING and any(up.partition.attempt and up.state in ASKING for up in missing)

    def _may_make(self, job: Job) -> bool:
        if self.only is None or job.key in self.only or f"{job.key}/{job.fingerprint[:FOLDER_CHARS]}" in self.only:
            return True
        # A further attempt is missing in the list written earlier; it belongs to the style that asks for it.
        return bool(job.partition.attempt) and f"select/{job.partition.style}" in self.only

    def _carry_out(self, name: str, jobs: list[Job], stage_log: StageLog) -> None:
        steps = self.plan.by_stage[name]
        if not jobs:
            show_work(name, name, lambda: tally_steps(steps, {step.key for step in steps if step.made}))
        elif self._declaration(name).split_by and not self._declaration(name).resumes:
            self._fan_out(name, jobs)
        else:
            for job in jobs:
                show_work(name, name, functools.partial(self._run_here, job, stage_log))

    def _run_here(self, job: Job, stage_log: StageLog) -> Tally:
        """Run a stage of one partition, or a training, in this process with all its threads; report its progress."""
        bar = ProgressBar(job.partition.stage)

        def hear(progress: Progress) -> None:
            stage_log.hear(progress)
            if progress.total:
                bar.update(progress.step, progress.total)

        with listening(hear):
            try:
                outcome = Outcome(job.key, execute(job, self.root))
            except Exception as error:
                outcome = Outcome(job.key, error=error)
        self._settle(job, outcome)
        return tally_steps([self.plan.steps[job.key]], set())

    def _fan_out(self, name: str, jobs: list[Job]) -> None:
        """Submit all jobs to the workers at once; each style's jobs are awaited in their own task run."""
        function = functools.partial(execute, root=self.root)
        by_key = {job.key: job for job in jobs}
        futures = self.workers.start(function, by_key)
        bar, done = ProgressBar(name), 0

        def wait_for(style: str | None) -> Tally:
            nonlocal done
            mine = {key: job for key, job in by_key.items() if job.partition.style == style}
            steps = [step for step in self.plan.by_stage[name] if step.partition.style == style]
            before = {step.key for step in steps if step.state == "cached"}
            for outcome in self.workers.outcomes(function, mine, {key: futures[key] for key in mine}):
                self._settle(mine[outcome.key], outcome)
                done += 1
                bar.update(done, len(jobs))
            return tally_steps(steps, before)

        for style in dict.fromkeys(job.partition.style for job in jobs):
            run_name = f"{name} {style}" if style else name
            show_work(name, run_name, functools.partial(wait_for, style))

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if outcome.error is None:
            self.plan.finish(outcome.value)
            return
        expected = isinstance(outcome.error, MISTAKES)
        log.error("%s failed: %s", job.key, outcome.error, exc_info=None if expected else outcome.error)
        self.plan.fail(job.partition, str(outcome.error) or type(outcome.error).__name__)

    def _log_stage(self, result: StageResult, stage_log: StageLog) -> None:
        tally = result.tally
        made = [step.entry for step in result.steps if step.made and step.entry]
        records = [(self.plan.catalog.read(entry), self._address(entry)) for entry in made]
        samples, rejected = sum(e.samples for e in made), sum(e.rejected for e in made)
        counts: dict[str, float] = {
            "seconds": result.seconds,
            "partitions": len(result.steps),
            "partitions_run": tally.made,
            "partitions_cached": tally.cached,
            "partitions_failed": tally.failed + tally.blocked,
            "samples": samples,
            "rejected": rejected,
            "yield": samples / max(samples + rejected, 1),
        }
        stage_log.summary(counts, records)

    def _address(self, entry: Entry) -> str:
        """Place of a partition below the data root, which may be moved."""
        return self.plan.catalog.folder(entry).relative_to(self.root).as_posix()

    def _declaration(self, name: str) -> Stage:
        return next(stage for stage in self.plan.stages if stage.name == name)

    def entry(self, name: str) -> Entry:
        """Return the entry of a stage with one partition, once it is made."""
        (step,) = self.plan.by_stage[name]
        if not step.made or step.entry is None:
            hints = {"dataset": "stillroom build", "distill": "stillroom distill"}
            raise UserError(f"there is no {name} for these settings yet", hint=hints.get(name))
        return step.entry

    def folder(self, name: str) -> Path:
        """The folder of a stage that is one partition."""
        return self.plan.catalog.folder(self.entry(name))

    def conclude(self, **outcome: Any) -> dict[str, Any]:
        """Return the values that the command line prints. Raises, with the list, if a partition failed."""
        self.check()
        self.outcome = {**outcome, **self.counts()}
        return self.outcome

    def counts(self) -> dict[str, Any]:
        """Partitions made and cached, and samples rejected, over the stages of this run."""
        tallies = [result.tally for result in self.results.values()]
        # A refused paraphrase is no lost sample.
        steps = [s for name, r in self.results.items() if name != "prompts" for s in r.steps]
        entries = [step.entry for step in steps if step.made and step.entry]
        return {
            "partitions_run": sum(tally.made for tally in tallies),
            "partitions_cached": sum(tally.cached for tally in tallies),
            "rejected": sum(entry.rejected for entry in entries),
            "mlflow_run_id": self.tracker.run_id,
            "seconds": round(time.monotonic() - self._started, 2),
        }

    def check(self) -> None:
        """Fail the run, with the list, if a partition failed."""
        steps = [step for result in self.results.values() for step in result.steps]
        failed = [step for step in steps if step.state == "failed"]
        blocked = sum(step.state == "blocked" for step in steps)
        if not failed:
            return
        listed = {step.key: _first_line(step.note) for step in failed[:FAILURES_SHOWN]}
        more = f" and {len(failed) - FAILURES_SHOWN} more" if len(failed) > FAILURES_SHOWN else ""
        failures = f"{len(failed)} {'partition' if len(failed) == 1 else 'partitions'} failed{more}"
        waiting = f"{blocked} {'waits' if blocked == 1 else 'wait'} for {'it' if len(failed) == 1 else 'them'}"
        message = f"{failures}; {waiting}"
        hint = "fix the cause, then run: stillroom retry    (finished partitions are kept)"
        raise UserError(message, hint=hint, **listed)

    def note(self, profile: str, overrides: Sequence[str], parameters: dict[str, Any], state: str) -> RunNote:
        """Return the note of this run, with all that a retry needs."""
        seconds = round(time.monotonic() - self._started, 2)
        steps = self.plan.steps.values()
        return RunNote(
            flow=self.flow,
            profile=profile,
            state=state,
            seconds=seconds,
            stage=None if state == "completed" else self.at,
            stage_seconds={name: result.seconds for name, result in self.results.items()},
            outcome=self.outcome,
            overrides=list(overrides),
            parameters=parameters,
            failed={step.key: _first_line(step.note) for step in steps if step.state == "failed"},
            blocked=[step.key for step in steps if step.state == "blocked"],
        )


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0]


def tally_steps(steps: Sequence[Step], cached_before: set[str]) -> Tally:
    """Count the states of steps; samples and rejections are those of the partitions made now."""
    made = [step for step in steps if step.made and step.key not in cached_before]
    entries = [step.entry for step in made if step.entry]
    return Tally(
        made=len(made),
        cached=sum(step.made for step in steps) - len(made),
        failed=sum(step.state == "failed" for step in steps),
        blocked=sum(step.state == "blocked" for step in steps),
        samples=sum(entry.samples for entry in entries),
        rejected=sum(entry.rejected for entry in entries),
        asking=sum(bool(step.note) and step.state in ASKING for step in steps),
        what="prompts" if steps and steps[0].partition.stage == "prompts" else "samples",
    )


def on_cluster(overrides: Sequence[str] | None, cluster: str | None) -> list[str]:
    """Return the overrides, with the cluster added."""
    return [*(overrides or []), *([f"run.cluster={cluster}"] if cluster else [])]


@contextmanager
def open_run(
    flow: str,
    profile: str,
    overrides: Sequence[str],
    pins: dict[str, str] | None = None,
    force: Sequence[str] = (),
    only: Collection[str] | None = None,
    parameters: dict[str, Any] | None = None,
    shape: Callable[[Settings], PlanShape] | None = None,
) -> Iterator[FlowRun]:
    """Plan, open the tracking run and the workers; at the end check for failures and note the outcome.

    `parameters` are those of the flow beside profile and overrides: `stillroom retry` passes them again.  `shape`
    defines the plan where it is not the whole main job.
    """
    log_plainly()
    settings = load_settings(profile, list(overrides))
    root = data_root()
    check_writable(root)
    plan = open_plan(settings, root, pins=pins, force=force, shape=shape(settings) if shape else None)
    show_plan(stage_rows(plan))
    given = parameters or {}
    with Workers(settings.run, root) as workers, tracked(root, settings, flow, overrides, given) as (tracker, note):
        run = FlowRun(flow, root, plan, tracker, workers, only, note)
        try:
            yield run
            run.check()
        except BaseException as error:
            state = "failed" if isinstance(error, Exception) else "cancelled"
            _note_end(run, run.note(profile, overrides, given, state))
            if not isinstance(error, MISTAKES) and disk_is_full(root):
                raise no_space(root) from error
            raise
        with writing(root):
            _note_end(run, run.note(profile, overrides, given, "completed"))


def _note_end(run: FlowRun, note: RunNote) -> None:
    """Write the outcome of the run. For a failed run, errors of this step are ignored: its own error matters more."""
    try:
        note_run(run.root, note)
        run.tracker.metrics(run.tracker.run_id, {"seconds": note.seconds})
    except Exception as error:
        if note.state == "completed":
            raise
        log.warning("the end of the run could not be noted: %s", error)
