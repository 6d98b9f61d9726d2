"""Arm of an experiment: some settings and a seed, carried out as stages of the store.

The store keeps each arm: it is made once, and a killed run continues with the missing arms.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import AcquireReturnProxy, FileLock, Timeout

from data_catalog.config.profiles import with_profile
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_json
from data_catalog.store.fingerprint import digest_json, write_atomically
from data_catalog.workspace import Workspace
from flows.ask.plan import PlanShape
from flows.run.adaptation import make_samples
from flows.run.products import log_pictures
from flows.run.run import FlowRun, open_run

Name = TypeVar("Name")

RUNS = "mlflow/arms.json"  # file below the data root: the run that made each arm, by its digest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmWork:
    """Work of an arm: settings, stages, and values for MLflow."""

    workspace: Workspace
    pins: Mapping[str, str]
    shape: Callable[[Settings], PlanShape]
    stages: Sequence[str]
    told: Mapping[str, str]  # what MLflow should say of it
    with_samples: bool = True  # the stages of `build` up to the teacher come first


@dataclass(frozen=True)
class Kept:
    """Stored arm: results of its last stage, and digests of the named stages."""

    folder: Path
    metrics: dict[str, float]
    seconds: float  # of making it
    digests: dict[str, str]
    settings: Settings
    run_id: str  # of MLflow: the run that made it


def keep_arms(experiment: str, works: Mapping[Name, ArmWork]) -> Iterator[tuple[Name, Kept]]:
    """Make the missing arms; yields each with its name as it is done.

    An arm that another process is making comes last: several calls of a flow share the arms, on a core or GPU each.
    """
    waiting = dict(works)
    while waiting:
        name, held = _take(waiting)
        with held:
            kept = keep_arm(experiment, waiting.pop(name))
        yield name, kept


def _take(works: Mapping[Name, ArmWork]) -> tuple[Name, AcquireReturnProxy]:
    """Return the first arm that no other process has locked, else wait for the first of all; its lock is held."""
    locks = {name: lock_arm(work) for name, work in works.items()}
    for name, lock in locks.items():
        with suppress(Timeout):
            return name, lock.acquire(timeout=0)
    name, lock = next(iter(locks.items()))
    log.info("arm        waiting for another process that makes %s", name)
    return name, lock.acquire()


def lock_arm(work: ArmWork) -> FileLock:
    """Lock of an arm, held by the process that makes it; the lock of a dead process is free."""
    workspace = work.workspace
    asked = digest_json([workspace.profile, list(workspace.overrides), dict(work.pins), list(work.stages)])
    path = workspace.store.lock_file(f"arm/{asked}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def keep_arm(experiment: str, work: ArmWork) -> Kept:
    """Make the missing stages of an arm."""
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
    """Return the MLflow run that made an arm: this one, or an earlier call's."""
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
    """Return the command that makes an experiment's page, as the page shows it."""
    told = [start, *(f"--set '{override}'" for override in workspace.overrides)]
    return with_profile(" ".join(told), workspace.profile)
