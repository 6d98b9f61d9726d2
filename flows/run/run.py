"""Run of a flow: its stages in their order, and what becomes of each partition."""

import functools
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import with_profile
from data_catalog.config.settings import RunSettings, Settings
from data_catalog.plan.plan import Plan
from data_catalog.plan.steps import Step
from data_catalog.products.snapshot import snapshot_digest
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.execute import Job
from data_catalog.store.stage import Partition, Stage
from data_catalog.store.store import FOLDER_CHARS, check_writable
from data_catalog.workspace import Workspace
from flows.ask.left_out import check_left, count_reasons, name_reasons, tell_left_out, tell_rejected
from flows.ask.plan import PlanShape, open_plan, stage_rows, tell_work
from flows.ask.shelf import recorded_settings
from flows.ask.unknown import tell_unknown
from flows.mistakes import find_mistake
from flows.run.clusters import LocalCluster, read_cluster
from flows.run.fan_out import FanOut, Piece
from flows.run.first_look import work_begins
from flows.run.history import maker_of
from flows.run.lifecycle import make_turn, tracked
from flows.run.recording import Recording, StageRecording, StageResult, first_line
from flows.run.runner import Outcome, Workers
from flows.track.flow_run_names import name_products
from flows.track.prefect_pages import Mark, Tally, log_plainly, show_plan
from tasks.dataset import MADE_FROM
from tasks.progress import listening

log = logging.getLogger(__name__)

FAILURES_SHOWN = 10
PRODUCTS = {"build-dataset": "dataset", "distill": "distill", "evaluate": "evaluate"}  # stage of each flow's product
ASKING = ("run", "maybe")  # states of a step that is still to be made
SAMPLED = ("portraits", "align", "edit", "score", "select", "teach", "dataset")  # stages that must leave a sample


class FlowRun:
    """A running flow. The flow calls `stage` for each stage it consists of, in their order.

    only: the partitions that this run may make, as keys or as folders below the store; None for all.
    """

    def __init__(self, plan: Plan, recording: Recording, fan_out: FanOut, only: Collection[str] | None = None) -> None:
        self.plan, self.recording, self.fan_out = plan, recording, fan_out
        self.root, self.settings, self.tracker = plan.store.root, plan.settings, recording.tracker
        self.only = None if only is None else frozenset(only)
        self.results: dict[str, StageResult] = {}
        self.snapshot: Path | None = None  # the folder of the dataset, once it is published
        self._left_out: dict[str, Any] = {}
        self._declared = {stage.name: stage for stage in plan.stages}

    def stage(self, name: str) -> StageResult:
        """Make the missing partitions of a stage. A failing partition stops only those that depend on it."""
        started, stage, steps = time.monotonic(), self._declared[name], self.plan.by_stage[name]
        with self.recording.stage(name) as recorded:
            if name == "portraits":
                self._left_out = tell_left_out(self.settings, self.root)
                for line in self._left_out.get("left_out", []):
                    log.warning("%s", line)
                for line in tell_unknown(self.settings):
                    log.warning("%s", line)
            jobs = {job.key: job for job in self.plan.resolve(name) if self._may_make(job)}
            before = {step.key for step in steps if step.state == "cached"}
            self._carry_out(stage, jobs, recorded)
            self.plan.save()
            earlier = self.results[name].seconds if name in self.results else 0.0
            seconds = round(earlier + time.monotonic() - started, 2)
            result = StageResult(name, steps, tally_steps(stage, steps, before, self.plan.catalog), seconds)
            recorded.finish(result)
        self.results[name] = result
        log.info("%-10s %s (%.1f s)", name, result.tally.text, seconds)
        if name in SAMPLED and all(step.made for step in steps):
            check_left(stage, self.plan.catalog, [step.entry for step in steps if step.entry])
        return result

    def top_up(self, *names: str) -> None:
        """Run these stages again while the last one asks for further attempts and more are made."""
        made = -1
        while any(self._waits_for_attempts(step) for step in self.plan.by_stage[names[-1]]):
            before, made = made, sum(step.made for name in names for step in self.plan.by_stage[name])
            if made == before:
                break  # this run may not make them
            for name in names:
                self.stage(name)
        self.recording.funnels(names[-1])

    def _waits_for_attempts(self, step: Step) -> bool:
        needs = self._declared[step.partition.stage].needs
        missing = [up for need in needs for up in self.plan.upstream(step, need.stage) if not up.made]
        return step.state in ASKING and any(up.partition.attempt and up.state in ASKING for up in missing)

    def _may_make(self, job: Job) -> bool:
        if self.only is None or job.key in self.only or f"{job.key}/{job.fingerprint[:FOLDER_CHARS]}" in self.only:
            return True
        # An attempt was not known when the list was written. It belongs to the partition that asked for it.
        return any(entry.partition in self.only and asked_for(entry, job.partition) for entry in self.plan.passed)

    def _carry_out(self, stage: Stage, jobs: dict[str, Job], recorded: StageRecording) -> None:
        ended: list[Outcome] = []
        for piece in self.fan_out.pieces(stage, jobs):
            work = functools.partial(self._finish_piece, stage, piece, jobs, ended, recorded)
            recorded.work(piece.name, work, piece.since)

    def _finish_piece(
        self,
        stage: Stage,
        piece: Piece,
        jobs: dict[str, Job],
        ended: list[Outcome],
        recorded: StageRecording,
        mark: Mark,
    ) -> Tally:
        """Await the jobs of a piece of work, and note in the plan what became of each."""
        steps = [step for step in self.plan.by_stage[stage.name] if piece.style in (None, step.partition.style)]
        before = {step.key for step in steps if step.state == "cached" or (step.made and not jobs)}
        with listening(recorded.hear):
            for outcome in piece.outcomes:
                if outcome.span is not None:
                    mark(outcome.span)
                self._settle(jobs[outcome.key], outcome)
                ended.append(outcome)
                if len(jobs) > 1:
                    recorded.advance(len(ended), len(jobs))
        return tally_steps(stage, steps, before, self.plan.catalog)

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if outcome.error is None:
            self.plan.finish(outcome.value)
            return
        mistake = find_mistake(outcome.error, self.root)
        said = str(mistake or outcome.error)
        log.error("%s failed: %s", job.key, said, exc_info=None if mistake else outcome.error)
        self.plan.fail(job.partition, said or type(outcome.error).__name__)

    def entry(self, name: str) -> Entry:
        """Return what is known of a stage that is one partition. Raises UserError unless it is made."""
        (step,) = self.plan.by_stage[name]
        if not step.made or step.entry is None:
            command = self._declared[name].command
            hint = f"stillroom {command}" if command else None
            raise UserError(f"there is no {name} for these settings yet", hint=hint)
        return step.entry

    def folder(self, name: str) -> Path:
        """Return the folder of a stage that is one partition."""
        return self.plan.catalog.folder(self.entry(name))

    def conclude(self, **outcome: Any) -> dict[str, Any]:
        """Return what the flow returns and the command line prints. Raises UserError if a partition failed."""
        self.check()
        self.recording.outcome = {**outcome, **self.counts()}
        name_products({kind: outcome[kind] for kind in ("dataset", "student") if kind in outcome})
        return self.recording.outcome

    def counts(self) -> dict[str, Any]:
        """Count partitions made and cached, and samples rejected, over the stages of this run."""
        results = self.results.values()
        # A prompt that was refused is no sample that was lost.
        of_samples = [step for result in results if result.tally.what == "samples" for step in result.steps]
        made = [step.entry for step in of_samples if step.made and step.entry]
        return {
            "partitions_run": sum(result.tally.made for result in results),
            "partitions_cached": sum(result.tally.cached for result in results),
            "rejected": sum(entry.rejected for entry in made),
            **tell_rejected(self.plan.catalog, made, self.snapshot),
            **self._left_out,
            "mlflow_run_id": self.tracker.run_id,
            "seconds": self.recording.seconds,
        }

    def check(self) -> None:
        """Raise UserError with the list of partitions that failed, if there are any."""
        steps = [step for result in self.results.values() for step in result.steps]
        failed = [step for step in steps if step.state == "failed"]
        blocked = sum(step.state == "blocked" for step in steps)
        if not failed:
            return
        listed = {step.key: first_line(step.note) for step in failed[:FAILURES_SHOWN]}
        more = f" and {len(failed) - FAILURES_SHOWN} more" if len(failed) > FAILURES_SHOWN else ""
        failures = f"{len(failed)} {'partition' if len(failed) == 1 else 'partitions'} failed{more}"
        it = "it" if len(failed) == 1 else "them"
        message = f"{failures}; {blocked} {'waits' if blocked == 1 else 'wait'} for {it}"
        again = with_profile("stillroom retry", self.settings.profile)
        hint = f"fix the cause, then run: {again}    (what is finished is kept)"
        raise UserError(message, hint=hint, **listed)


def asked_for(entry: Entry, partition: Partition) -> bool:
    """Whether a made partition asked for this attempt of its style."""
    return partition.place in entry.more and Partition.parse(entry.partition).style == partition.style


def tally_steps(stage: Stage, steps: Sequence[Step], cached_before: set[str], catalog: Catalog) -> Tally:
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
        what=stage.what,
        reasons=name_reasons(count_reasons(catalog, entries)),
        causes=[f"{step.key}: {first_line(step.note)}" for step in steps if step.state == "failed" and step.note],
    )


def on_cluster(overrides: Sequence[str] | None, cluster: str | None) -> list[str]:
    """Return the overrides, with the cluster among them."""
    return [*(overrides or []), *([f"run.cluster={cluster}"] if cluster else [])]


def check_device(run: RunSettings) -> None:
    """Raise UserError unless torch can use the device here; the workers of a cluster are checked when they are there.

    Plans do not import torch, and so do not ask.
    """
    if run.device == "cpu" or not isinstance(read_cluster(run.cluster), LocalCluster):
        return
    from models.devices import device_problem

    if (problem := device_problem(run.device)) is not None:
        hint = "--set run.device=cpu, or what stillroom doctor finds"
        raise UserError(f"run.device: {run.device} cannot be used", found=problem, hint=hint)


def own_stages(flow: str, plan: Plan, pins: Mapping[str, str]) -> Collection[str]:
    """Return the stages of a plan that the flow makes: of the main job, or those that are not pinned."""
    of_job = {"build-dataset": (*MADE_FROM, "dataset"), "distill": ("distill",), "evaluate": ("evaluate",)}
    pinned = {key.partition("/")[0] for key in pins}
    return of_job.get(flow, [stage.name for stage in plan.stages if stage.name not in pinned])


def made_by(plan: Plan, flow: str) -> str | None:
    """Return MLflow's run that made the product of a flow, where that is there and up to date."""
    for step in plan.by_stage.get(PRODUCTS.get(flow, ""), []):
        if step.state == "cached" and step.entry:
            is_dataset = step.partition.stage == "dataset"
            digest = snapshot_digest(plan.catalog.folder(step.entry)) if is_dataset else step.entry.digest
            return maker_of(plan.store.root, digest)
    return None


@contextmanager
def open_run(
    flow: str,
    workspace: Workspace,
    pins: dict[str, str] | None = None,
    force: Sequence[str] = (),
    only: Collection[str] | None = None,
    parameters: dict[str, Any] | None = None,
    shape: Callable[[Settings], PlanShape] | None = None,
) -> Iterator[FlowRun]:
    """Plan, open the tracking run and the workers; at the end check for failures and note what happened.

    parameters: those of the flow beside its settings; `stillroom retry` passes them again.  shape: the
    stages, styles and blocks of the plan, where that is not the whole main job.
    """
    log_plainly()
    settings, root = workspace.settings, workspace.root
    check_writable(root)
    check_device(settings.run)
    chosen = shape(settings) if shape else None
    plan = open_plan(settings, root, pins=pins, force=force, shape=chosen)
    work_begins()
    turn = make_turn(workspace, flow)

    def find_maker() -> str | None:
        nonlocal plan
        if turn.waited:  # the runs that it waited for have made some of it
            plan = open_plan(settings, root, pins=pins, force=force, shape=chosen)
        return made_by(plan, flow)

    made_with = recorded_settings(workspace, pins or {})
    with (
        Workers(settings.run, root) as workers,
        tracked(workspace, flow, parameters, turn, made_with, find_maker) as (tracker, note),
    ):
        own = own_stages(flow, plan, pins or {})
        show_plan([row for row in stage_rows(plan) if row["stage"] in own])
        if only is None and (told := tell_work(plan, own)):
            log.info("%s", told)
        recording = Recording(plan, tracker, note)
        run = FlowRun(plan, recording, FanOut(workers, root), only)
        with recording.until_end():
            yield run
            run.check()
