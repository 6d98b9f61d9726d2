"""An arm of an experiment: some settings and a seed, carried out as stages of the store.

So it is kept: the same arm is made once, and a run that was killed goes on with the arms that are missing.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import AcquireReturnProxy, FileLock, Timeout

from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_json
from data_catalog.store.fingerprint import digest_json, write_atomically
from data_catalog.workspace import Workspace
from flows.ask.plan import PlanShape
from flows.run.adaptation import make_samples
from flows.run.products import log_pictures
from flows.run.run import FlowRun, open_run

Name = TypeVar("Name")

RUNS = "mlflow/arms.json"  # below the data root: the run that made each arm, by its digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmWork:
    """What is to be made of an arm."""

    workspace: Workspace
    pins: Mapping[str, str]
    shape: Callable[[Settings], PlanShape]
    stages: Sequence[str]
    told: Mapping[str, str]  # what MLflow should say of it
    with_samples: bool = True  # the stages of `build` up to the teacher come first


@dataclass(frozen=True)
class Kept:
    """What is known of an arm: of its last stage, but for the digests, which are of the named stages."""

    folder: Path
    metrics: dict[str, float]
    seconds: float  # of making it
    digests: dict[str, str]
    settings: Settings
    run_id: str  # of MLflow: the run that made it


def keep_arms(experiment: str, works: Mapping[Name, ArmWork]) -> Iterator[tuple[Name, Kept]]:
    """Make the arms, unless they are made; each with its name, as they come.

    One that another process is at comes last: so calls of a flow share its arms, be they on a core or a GPU each.
    """
    waiting = dict(works)
    while waiting:
        name, held = _take(waiting)
        with held:
            kept = keep_arm(experiment, waiting.pop(name))
        yield name, kept


def _take(works: Mapping[Name, ArmWork]) -> tuple[Name, AcquireReturnProxy]:
    """The first arm that no other process is at, or the first of all as soon as it is left; its lock is held."""
    locks = {name: lock_arm(work) for name, work in works.items()}
    for name, lock in locks.items():
        with suppress(Timeout):
            return name, lock.acquire(timeout=0)
    name, lock = next(iter(locks.items()))
    log.info("arm        waiting for another process that makes %s", name)
    return name, lock.acquire()


def lock_arm(work: ArmWork) -> FileLock:
    """What a process holds while it makes an arm; that of a dead process is free."""
    workspace = work.workspace
    asked = digest_json([workspace.profile, list(workspace.overrides), dict(work.pins), list(work.stages)])
    path = workspace.store.lock_file(f"arm/{asked}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def keep_arm(experiment: str, work: ArmWork) -> Kept:
    """Make the stages of an arm, unless they are made."""
    stages = work.stages
    with open_run(experiment, work.workspace, dict(work.pins), shape=work.shape) as run:
        if work.with_samples:
            make_samples(run)
        for name in stages:
            run.stage(name)
        run.check()
        run.tracker.params(run.tracker.run_id, dict(work.told))
        folder, record = run.folder(stages[-1]), run.plan.catalog.read(run.entry(stages[-1]))
        log_pictures(run, folder)
        digests = {name: run.entry(name).digest for name in stages}
        run_id = _first_run(run, stages[-1])
        return Kept(folder, record.metrics, record.seconds, digests, run.settings, run_id)


def _first_run(run: FlowRun, stage: str) -> str:
    """The MLflow run that made an arm: this one, or that of an earlier call."""
    path = run.root / RUNS
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # other calls write here, too
        known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        digest = run.entry(stage).digest
        if run.results[stage].tally.made or digest not in known:
            known[digest] = run.tracker.run_id
            write_atomically(path, encode_json(known))
    return known[digest]


def tell_command(start: str, workspace: Workspace) -> str:
    """The command that makes an experiment's page, as the page shows it."""
    told = [start, *(f"--set '{override}'" for override in workspace.overrides)]
    return " ".join([*told, *([] if workspace.profile == "demo" else [f"--profile {workspace.profile}"])])
