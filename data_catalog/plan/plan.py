"""The plan: which partitions are made already, which will run and why, and which may have to.

    plan = make_plan(STAGES, settings, store, styles, blocks, weights_digest)
    for stage in plan.stages:
        for job in plan.resolve(stage.name):  # by now every upstream digest is known: early cutoff
            plan.finish(execute(job, store.root))  # in any process; or plan.fail(job.partition, message)

Planning reads the index and looks at names and sizes; it writes nothing and imports no engine.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.plan.reasons import Reason, differences, same_but_inputs
from data_catalog.plan.source import SourceDigest, SourceReader
from data_catalog.plan.stage_code import StageCode
from data_catalog.plan.steps import Step, along, digest_for, in_order, named
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.execute import Job
from data_catalog.store.fingerprint import FileDigests, canonical_json, digest_json
from data_catalog.store.record import Record
from data_catalog.store.stage import Input, Need, Partition, Stage
from data_catalog.store.store import RECORD, Store, writing

FAULTS_SHOWN = 3  # of one partition's files


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
    ) -> None:
        self.stages = tuple(stages)
        self.settings = settings
        self.store = store
        self.catalog = Catalog(store)
        self.steps: dict[str, Step] = {}
        self.by_stage: dict[str, list[Step]] = {stage.name: [] for stage in stages}
        self._declared = {stage.name: stage for stage in stages}
        self._files = FileDigests(store.root / "catalog" / "files.json")
        self.code = StageCode(stages, settings, model_modules, source, store.root / "catalog" / "code")
        self._weights_digest = weights_digest
        self._weights: dict[str, dict[str, str]] = {}
        self._upstream: dict[tuple[str, str], dict[tuple[str | None, int | None, int], list[Step]]] = {}
        self._force = [name.strip("/") for name in force]
        self._forced: set[str] = set()
        self._attempts: list[Partition] = []  # asked for so far, of no stage
        self.passed: list[Entry] = []  # partitions that asked for more, and were then judged again with it

    def add_stage(self, stage: Stage, styles: list[str], blocks: list[int], pins: Mapping[str, str]) -> None:
        """Take in a stage whose upstream stages are there already: its partitions, and the attempts asked for."""
        partitions = stage.partitions(styles, blocks)
        if "attempt" in stage.split_by:
            partitions += [place._replace(stage=stage.name) for place in self._attempts]
        for partition in sorted(partitions, key=in_order):
            self._add(partition, pins.get(partition.key))

    def _add(self, partition: Partition, pinned: str | None = None) -> None:
        step = Step(partition, partition.key)
        self.steps[step.key] = step
        self.by_stage[partition.stage].append(step)
        if pinned is not None:
            self._pin(step, pinned)
            return
        if named(step.key, self._force):
            self._forced.add(step.key)
        self._judge(step)
        self._follow(step)

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
                up.key for need in self._declared[stage_name].needs for up in self._ups(step, need) if not up.made
            ]
            if missing:
                step.state, step.note = "blocked", f"{missing[0]} was not made"
                continue
            self._judge(step)
            self._follow(step)
            if step.state == "run" and step.fingerprint is not None:
                jobs.append(self._job(step))
        if jobs:
            with writing(self.store.root):
                self.code.remember(stage_name)
        return jobs

    def finish(self, record: Record) -> None:
        """Note that a job's partition is made. Where it asks for further attempts, it then waits for them."""
        step = self.steps[record.partition]
        step.entry, step.fingerprint, step.state = self.catalog.add(record), record.fingerprint, "done"
        self._follow(step)

    def fail(self, partition: Partition, message: str) -> None:
        """Note that a job failed: what depends on it is blocked, all else goes on."""
        step = self.steps[partition.key]
        step.state, step.note = "failed", message

    def save(self) -> None:
        """Write the index and what was learned about files and code, all of which can be found out again."""
        with writing(self.store.root):
            self.catalog.save()
            self._files.save()
            self.code.save()

    def source(self, stage_name: str) -> SourceDigest:
        """Digest of the code behind a stage: of its module, and of the modules of its models."""
        return self.code.digest(stage_name)

    def made_from(self, entry: Entry) -> dict[str, Any]:
        """The fingerprint inputs of a record, without the rest of it: a plan may ask for thousands."""
        text = (self.catalog.folder(entry) / RECORD).read_bytes()
        inputs: dict[str, Any] = json.loads(text)["fingerprint_inputs"]
        return inputs

    def now(self, step: Step) -> dict[str, Any]:
        """The fingerprint inputs as they are now; a digest that is not known yet is None."""
        own, known, unknown = self._inputs(step)
        return _plain({**own, "inputs": {**known, **dict.fromkeys(unknown)}})

    def upstream(self, step: Step, stage_name: str) -> list[Step]:
        """The steps of another stage that a step needs."""
        return self._ups(step, Need(stage_name))

    def _follow(self, step: Step) -> None:
        """While a partition that is made asks for attempts: take those in, and judge it again as made with them.

        What it asks for is a function of its inputs, so that every plan comes to the same end, and one that was
        interrupted anywhere goes on from there.
        """
        while step.made and step.entry is not None and (asked := self._asked(step, step.entry)):
            self.passed.append(step.entry)
            self._attempts += asked
            for stage in self.stages:
                steps = self.by_stage[stage.name]
                if "attempt" in stage.split_by and steps:  # a later stage finds them when it is added
                    for place in asked:
                        self._add(place._replace(stage=stage.name))
                    steps.sort(key=lambda each: in_order(each.partition))
                    self._upstream = {pair: index for pair, index in self._upstream.items() if pair[1] != stage.name}
            self._judge(step)
            if step.state in ("run", "maybe"):
                step.note = f"too few are kept; more attempts: {' '.join(str(place.place) for place in asked)}"

    def _asked(self, step: Step, entry: Entry) -> list[Partition]:
        """Return the attempts that a made partition asks for and that are not in the plan yet."""
        known = set(self._attempts)
        wanted = (Partition.parse(f"{step.key}/{place}")._replace(stage="") for place in entry.more)
        return [place for place in wanted if place not in known]

    def _judge(self, step: Step) -> None:
        """Set the step's state and reasons."""
        own, known, unknown = self._inputs(step)
        inputs = {**own, "inputs": known}
        step.reasons, step.note, step.fits = [], "", False
        if unknown:
            step.fingerprint, step.entry = None, None
            self._judge_early(step, inputs, unknown)
            return
        step.fingerprint = digest_json(inputs)
        step.entry = step.near = self.catalog.find(step.key, step.fingerprint)
        if step.entry is not None:
            step.reasons, step.fits = self._faults(step, step.entry), True
        else:
            history = self.catalog.history(step.key)
            step.reasons = self._changes(step, history[0], _plain(inputs)) if history else [Reason("new")]
        step.state = "run" if step.reasons else "cached"

    def _judge_early(self, step: Step, inputs: dict[str, Any], unknown: list[str]) -> None:
        """With upstream digests unknown: `maybe`, if they could turn out so that a record matches."""
        history = self.catalog.history(step.key)
        if not history:
            step.state, step.reasons, step.near = "run", [Reason("new")], None
            return
        now = _plain({**inputs, "inputs": {**inputs["inputs"], **dict.fromkeys(unknown)}})
        for entry in history:
            if same_but_inputs(self.made_from(entry), now, inputs["inputs"]):
                step.near, step.fits, faults = entry, True, self._faults(step, entry)
                step.state = "run" if faults else "maybe"
                step.reasons = faults or _upstream(unknown, "runs", "run")
                return
        then = self.made_from(history[0]).get("inputs", {})
        as_before, added = [key for key in unknown if key in then], [key for key in unknown if key not in then]
        still = {**now, "inputs": {**inputs["inputs"], **{key: then[key] for key in as_before}}}
        changes = self._changes(step, history[0], _plain(still), expected=bool(added))
        step.state = "run"
        step.reasons = [*changes, *_upstream(added, "is new", "are new"), *_upstream(as_before, "runs", "run")]

    def _faults(self, step: Step, entry: Entry) -> list[Reason]:
        """Return the reasons why a matching record is not good enough."""
        if step.key in self._forced:
            return [Reason("forced")]
        problems = self.catalog.problems(entry)
        if problems:
            return [Reason(f"damaged: {problem}") for problem in problems[:FAULTS_SHOWN]]
        changed = self.code.change(step.partition.stage, entry)
        if changed is None or self.settings.on_code_change == "rerun":
            return [changed] if changed else []
        step.note = f"kept: {changed}"
        return []

    def _changes(self, step: Step, entry: Entry, now: dict[str, Any], expected: bool = False) -> list[Reason]:
        """Return the differences to a record that does not match; may be empty where new inputs are `expected`."""
        step.near = entry
        found = differences(self.made_from(entry), now)
        if not found and not expected:
            found = [Reason("its record does not match")]
        changed = self.code.change(step.partition.stage, entry)
        forced = [Reason("forced")] if step.key in self._forced else []
        return [*forced, *found, *([changed] if changed else [])]

    def _pin(self, step: Step, digest: str) -> None:
        for entry in self.catalog.history(step.key):
            if entry.digest.startswith(digest) and not self.catalog.problems(entry):
                step.state, step.entry, step.near, step.fingerprint = "cached", entry, entry, entry.fingerprint
                return
        raise UserError(f"the store has no complete {step.key} with the digest {digest}")

    def _inputs(self, step: Step) -> tuple[dict[str, Any], dict[str, str], list[str]]:
        """(own fingerprint inputs, known upstream digests, names of unknown upstream digests)."""
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
            for up in self._ups(step, need):
                name = f"{up.key}#{partition.place}" if need.part else up.key
                if up.made and up.entry is not None:
                    known[name] = digest_for(up.entry, partition, need)
                else:
                    unknown.append(name)
        return own, known, unknown

    def _ups(self, step: Step, need: Need) -> list[Step]:
        """Upstream steps that agree with the step on the dimensions both stages have."""
        stage, upstream = self._declared[step.partition.stage], self._declared[need.stage]
        shared = set(stage.split_by) & set(upstream.split_by)
        index = self._upstream.get((stage.name, need.stage))
        if index is None:
            index = {}
            for up in self.by_stage[need.stage]:
                index.setdefault(along(up.partition, shared), []).append(up)
            self._upstream[(stage.name, need.stage)] = index
        return index.get(along(step.partition, shared), [])

    def _job(self, step: Step) -> Job:
        stage, partition = self._declared[step.partition.stage], step.partition
        assert step.fingerprint is not None
        own, known, _ = self._inputs(step)
        given: dict[str, list[Input]] = {}
        for need in stage.needs:
            given[need.stage] = []
            for up in self._ups(step, need):
                assert up.entry is not None
                digest, record = digest_for(up.entry, partition, need), self.catalog.read(up.entry)
                given[need.stage].append(Input(up.partition, self.catalog.folder(up.entry), digest, record))
        return Job(
            partition=partition,
            fingerprint=step.fingerprint,
            fingerprint_inputs={**own, "inputs": known},
            version=stage.version,
            run=stage.run,
            resumes=stage.resumes,
            settings=self.settings,
            inputs=given,
            sources=stage.sources(self.settings, partition),
            source_digest=self.source(stage.name).digest,
            stale=step.entry.stamp if step.entry is not None else None,
        )


def _upstream(names: Sequence[str], one: str, several: str) -> list[Reason]:
    """Return one reason for all of these upstream partitions."""
    more = one if len(names) == 1 else f"and {len(names) - 1} more {several}"
    return [Reason(f"upstream {names[0]} {more}")] if names else []


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Return the value as a record stores it: tuples become lists."""
    plain: dict[str, Any] = json.loads(canonical_json(value))
    return plain


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
) -> Plan:
    """Judge every partition of the stages, which come in order of their needs.

    `force` names stages, stage/style or whole partitions to make again. `pins` fixes partitions to an earlier
    digest (its beginning is enough), whatever the settings say now: `{"dataset/all": "71aa0be3"}`.
    """
    plan = Plan(stages, settings, store, weights_digest, model_modules, source, force)
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
