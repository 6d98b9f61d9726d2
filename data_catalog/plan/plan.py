"""The plan: which partitions are made already, which will run and why, and which may have to.

    plan = make_plan(STAGES, settings, store, styles, blocks, weights_digest)
    for stage in plan.stages:
        for job in plan.resolve(stage.name):  # by now every upstream digest is known: early cutoff
            plan.finish(execute(job, store.root))  # in any process; or plan.fail(job.partition, message)

Planning reads the index and looks at names and sizes; it writes nothing and imports no engine.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.plan.judge import Inputs, Past, Verdict, judge, made_from
from data_catalog.plan.source import SourceDigest, SourceReader
from data_catalog.plan.stage_code import StageCode
from data_catalog.plan.steps import Step, Steps, digest_for, named
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.execute import Job
from data_catalog.store.failures import Failures
from data_catalog.store.fingerprint import FileDigests
from data_catalog.store.record import Record
from data_catalog.store.stage import Input, Partition, Stage
from data_catalog.store.store import Store, writing


class Plan:
    """Steps of all stages, in order. See the module's docstring for how it is driven."""

    def __init__(
        self,
        stages: Sequence[Stage],
        settings: Settings,
        store: Store,
        weights_digest: Callable[[str], str],
        model_modules: Callable[[str], Iterable[str]] | None,
        source: SourceReader | None,
        force: Sequence[str] = (),
        own: Callable[[Catalog, Entry], bool] | None = None,
    ) -> None:
        self.stages = tuple(stages)
        self.settings = settings
        self.store = store
        self.catalog = Catalog(store)
        self.code = StageCode(stages, settings, model_modules, source, store.root / "catalog" / "code")
        self.passed: list[Entry] = []  # partitions that asked for more, and were then judged again with it
        self._steps = Steps(stages)
        self.steps, self.by_stage = self._steps.by_key, self._steps.by_stage
        self._declared = {stage.name: stage for stage in stages}
        self._own = own or (lambda catalog, entry: False)
        self._failures = Failures(store.root)
        self._files = FileDigests(store.root / "catalog" / "files.json")
        self._weights_digest = weights_digest
        self._weights: dict[str, dict[str, str]] = {}
        self._force = [name.strip("/") for name in force]
        self._attempts: list[Partition] = []  # asked for so far, of no stage

    def add_stage(self, stage: Stage, styles: list[str], blocks: list[int], pins: Mapping[str, str]) -> None:
        """Take in a stage whose upstream stages are there already: its partitions, and the attempts asked for."""
        partitions = stage.partitions(styles, blocks)
        if "attempt" in stage.split_by:
            partitions += [place._replace(stage=stage.name) for place in self._attempts]
        for step in self._steps.add(stage.name, partitions):
            if step.key in pins:
                step.verdict = self._pinned(step, pins[step.key])
            else:
                self._judge(step)

    def check_force(self) -> None:
        """A name to force that stands for no partition would silently force nothing."""
        met = {name for key in self.steps for name in named(key, self._force)}
        for name in self._force:
            if name not in met:
                raise _nothing_to_force(name, self)

    def resolve(self, stage_name: str) -> list[Job]:
        """The jobs of a stage, once those before it are finished. A step without one is cached or blocked."""
        jobs = []
        for step in self.by_stage[stage_name]:
            if step.made or step.state == "failed":
                continue
            missing = [
                up.key
                for need in self._declared[stage_name].needs
                for up in self._steps.upstream(step, need.stage)
                if not up.made
            ]
            if missing:
                step.verdict = replace(step.verdict, state="blocked", note=f"{missing[0]} was not made")
                continue
            self._judge(step)
            if step.state == "run" and step.fingerprint is not None:
                jobs.append(self._job(step))
        if jobs:
            with writing(self.store.root):
                self.code.remember(stage_name)
        return jobs

    def finish(self, record: Record) -> None:
        """Note that a job's partition is made. Where it asks for further attempts, it then waits for them."""
        step, entry = self.steps[record.partition], self.catalog.add(record)
        step.verdict = replace(step.verdict, state="done", entry=entry, fingerprint=record.fingerprint)
        self._failures.forget(step.key, record.fingerprint)
        self._take_attempts(step)

    def fail(self, partition: Partition, message: str) -> None:
        """Note that a job failed: what depends on it is blocked, all else goes on."""
        step = self.steps[partition.key]
        step.verdict = replace(step.verdict, state="failed", note=message)
        if step.fingerprint is not None:
            self._failures.note(step.key, step.fingerprint, message)

    def save(self) -> None:
        """Write the index and what was learned about files and code, all of which can be found out again."""
        with writing(self.store.root):
            self.catalog.save()
            self._files.save()
            self.code.save()
            self._failures.save()

    def source(self, stage_name: str) -> SourceDigest:
        """Digest of the code behind a stage: of its module, and of the modules of its models."""
        return self.code.digest(stage_name)

    def made_from(self, entry: Entry) -> dict[str, Any]:
        """The fingerprint inputs of a record."""
        return made_from(self.catalog, entry)

    def now(self, step: Step) -> dict[str, Any]:
        """The fingerprint inputs as they are now; a digest that is not known yet is None."""
        return self._inputs(step).with_unknown()

    def upstream(self, step: Step, stage_name: str) -> list[Step]:
        """The steps of another stage that a step needs."""
        return self._steps.upstream(step, stage_name)

    def _judge(self, step: Step) -> None:
        """Judge a step. Where it is made and asks for attempts, take those in, too."""
        step.verdict = self._verdict(step)
        self._take_attempts(step)

    def _verdict(self, step: Step) -> Verdict:
        past = Past(
            key=step.key,
            stage=step.partition.stage,
            catalog=self.catalog,
            code=self.code,
            forced=bool(named(step.key, self._force)),
            keep=self.settings.on_code_change == "keep",
            own=partial(self._own, self.catalog),
            failure=self._failures.find(step.key),
        )
        return judge(self._inputs(step), past)

    def _take_attempts(self, step: Step) -> None:
        """While a made partition asks for attempts: take those in, and judge it again as made with them.

        What it asks for is a function of its inputs, so that every plan comes to the same end, and one that was
        interrupted anywhere goes on from there.
        """
        while asked := self._asked(step):
            for attempt in self._add_attempts(step, asked):
                self._judge(attempt)
            step.verdict = self._verdict(step)
            if step.state in ("run", "maybe"):
                places = " ".join(str(place.place) for place in asked)
                step.verdict = replace(step.verdict, note=f"too few are kept; more attempts: {places}")

    def _asked(self, step: Step) -> list[Partition]:
        """List the attempts that a made partition asks for and that are not in the plan yet."""
        if not step.made or step.entry is None:
            return []
        wanted = (Partition.parse(f"{step.key}/{place}")._replace(stage="") for place in step.entry.more)
        known = set(self._attempts)
        return [place for place in wanted if place not in known]

    def _add_attempts(self, step: Step, asked: list[Partition]) -> list[Step]:
        """Take in the attempts that a step asks for, in the stages so far; a later one finds them when it is added."""
        assert step.entry is not None
        self.passed.append(step.entry)
        self._attempts += asked
        stages = [stage for stage in self.stages if "attempt" in stage.split_by and self.by_stage[stage.name]]
        return [
            added
            for stage in stages
            for added in self._steps.add(stage.name, [place._replace(stage=stage.name) for place in asked])
        ]

    def _pinned(self, step: Step, digest: str) -> Verdict:
        for entry in self.catalog.history(step.key):
            if entry.digest.startswith(digest) and not self.catalog.problems(entry):
                return Verdict("cached", (), entry.fingerprint, entry, entry)
        raise UserError(f"the store has no complete {step.key} with the digest {digest}")

    def _inputs(self, step: Step) -> Inputs:
        """Gather the inputs that would make a partition now."""
        stage, partition = self._declared[step.partition.stage], step.partition
        if stage.name not in self._weights:
            names = stage.models(self.settings)
            self._weights[stage.name] = {name: self._weights_digest(name) for name in names}
        sources = stage.sources(self.settings, partition)
        own = {
            "stage": stage.name,
            "version": stage.version,
            "settings": stage.reads(self.settings, partition),
            "sources": {name: self._files.digest(path) for name, path in sources.items()},
            "weights": self._weights[stage.name],
        }
        known: dict[str, str] = {}
        unknown: list[str] = []
        for need in stage.needs:
            for up in self._steps.upstream(step, need.stage):
                name = f"{up.key}#{partition.place}" if need.part else up.key
                if up.made and up.entry is not None:
                    known[name] = digest_for(up.entry, partition, need)
                else:
                    unknown.append(name)
        return Inputs(own, known, unknown)

    def _job(self, step: Step) -> Job:
        stage, partition = self._declared[step.partition.stage], step.partition
        assert step.fingerprint is not None
        given: dict[str, list[Input]] = {}
        for need in stage.needs:
            given[need.stage] = []
            for up in self._steps.upstream(step, need.stage):
                assert up.entry is not None
                digest, record = digest_for(up.entry, partition, need), self.catalog.read(up.entry)
                given[need.stage].append(Input(up.partition, self.catalog.folder(up.entry), digest, record))
        return Job(
            partition=partition,
            fingerprint=step.fingerprint,
            fingerprint_inputs=self._inputs(step).document(),
            version=stage.version,
            run=stage.run,
            resumes=stage.resumes,
            settings=self.settings,
            inputs=given,
            sources=stage.sources(self.settings, partition),
            source_digest=self.source(stage.name).digest,
            stale=step.entry.stamp if step.entry is not None else None,
        )


def make_plan(
    stages: Sequence[Stage],
    settings: Settings,
    store: Store,
    styles: Sequence[str],
    blocks: Sequence[int],
    weights_digest: Callable[[str], str],
    *,
    model_modules: Callable[[str], Iterable[str]] | None = None,
    force: Sequence[str] = (),
    pins: Mapping[str, str] | None = None,
    source: SourceReader | None = None,
    own: Callable[[Catalog, Entry], bool] | None = None,
) -> Plan:
    """Judge every partition of the stages, which come in order of their needs.

    `force` names stages, stage/style or whole partitions to make again. `pins` fixes partitions to an earlier
    digest (its beginning is enough), whatever the settings say now: `{"dataset/all": "71aa0be3"}`. `own` tells which
    records the profile's own settings made; the reasons compare with those first.
    """
    plan = Plan(stages, settings, store, weights_digest, model_modules, source, force, own)
    for stage in stages:
        plan.add_stage(stage, sorted(styles), sorted(blocks), pins or {})
    plan.check_force()
    return plan


def _nothing_to_force(name: str, plan: Plan) -> UserError:
    keys = [*plan.by_stage, *(key.rpartition("/")[0] for key in plan.steps), *plan.steps]
    close = difflib.get_close_matches(name, dict.fromkeys(keys), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"stages: {', '.join(plan.by_stage)}"
    return UserError(
        f"--force {name}: no partition is named so", expected="stage, stage/style or a partition", hint=hint
    )
