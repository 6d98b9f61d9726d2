"""Flows with nothing to do: the outcome of a build or a training whose product is there, without Prefect or MLflow."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from data_catalog.config.settings import Settings
from data_catalog.plan.plan import Plan
from data_catalog.plan.steps import Step
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.snapshot import DOCUMENTS, MANIFEST, SAMPLES, find_whole, mark_latest, snapshot_digest
from data_catalog.store.catalog import Entry
from data_catalog.store.fingerprint import digest_files
from data_catalog.store.store import writing
from data_catalog.workspace import Workspace
from flows.ask.left_out import tell_left_out, tell_rejected
from flows.ask.plan import PlanShape, open_plan, whole_shape
from flows.run.active import left_runs
from flows.run.history import RunNote, maker_of, note_run

Outcome = dict[str, Any]
Found = tuple[Plan, str, Outcome]  # the plan, the digest of the product, what the flow says of it


def finished(flow: str, profile: str, overrides: Sequence[str], parameters: dict[str, Any]) -> Outcome | None:
    """Return what the flow would return, and note the run, where all that it makes is there; None where it must run.

    `mlflow_run_id` is that of the run that made the product; None where an older version made it.
    """
    find, started, workspace = FINDERS.get(flow), time.monotonic(), Workspace.open(profile, overrides)
    root = workspace.root
    if find is None or parameters.get("force") or left_runs(root):  # MLflow has yet to hear of a run that was killed
        return None
    if parameters.get("cluster"):
        from flows.run.clusters import read_cluster

        read_cluster(parameters["cluster"])  # a mistake in its name is one with nothing to do, too
    found = find(workspace, parameters)
    if found is None:
        return None
    plan, digest, outcome = found
    plan.save()
    outcome |= {"mlflow_run_id": maker_of(root, digest), "seconds": round(time.monotonic() - started, 2)}
    given = {name: value for name, value in parameters.items() if name == "dataset"}
    note = RunNote(
        flow=flow,
        profile=profile,
        state="completed",
        seconds=outcome["seconds"],
        stage_seconds={stage.name: 0.0 for stage in plan.stages},
        outcome=outcome,
        overrides=list(overrides),
        parameters=given,
    )
    with writing(root):
        note_run(root, note)
    return outcome


def find_dataset_made(workspace: Workspace, parameters: dict[str, Any]) -> Found | None:
    """Find the dataset where every partition is cached, and its snapshot is published, whole and documented."""
    from tasks.dataset import MADE_FROM
    from tasks.datasets.made import is_own

    settings, root = workspace.settings, workspace.root
    plan = open_plan(settings, root, shape=_shape(settings, *MADE_FROM, "dataset"))
    if not _all_cached(plan):
        return None
    entry = plan.steps[DATASET].entry
    assert entry is not None
    files = plan.catalog.read(entry).files
    snapshot = find_whole(root, digest_files({name: files[name].sha256 for name in (SAMPLES, MANIFEST)}))
    if snapshot is None or not all((snapshot.folder / name).is_file() for name in DOCUMENTS):
        return None
    if is_own(settings):
        mark_latest(root, snapshot.digest)
    said = {"dataset": snapshot.digest, "samples": snapshot.manifest["samples"]}
    said |= _counts(list(plan.steps.values()))
    with writing(root):
        said |= tell_rejected(plan.catalog, _entries(list(plan.steps.values())), snapshot.folder)
        said |= tell_left_out(settings, root)
    return plan, snapshot.digest, said


def find_student_made(workspace: Workspace, parameters: dict[str, Any]) -> Found | None:
    """Find the student of a dataset, that of the settings or a named one, where it is trained."""
    from flows.run.products import find_dataset

    settings, pins = workspace.settings, find_dataset(parameters.get("dataset"), workspace)
    plan = open_plan(settings, workspace.root, pins=pins, shape=_shape(settings, "dataset", "distill"))
    if not _all_cached(plan):
        return None
    dataset_entry, student = plan.steps[DATASET].entry, plan.steps[STUDENT].entry
    assert dataset_entry is not None
    assert student is not None
    digest, metrics = snapshot_digest(plan.catalog.folder(dataset_entry)), plan.catalog.read(student).metrics
    said = {"student": student.digest, "dataset": digest, "metrics": metrics}
    return plan, student.digest, said | _counts([plan.steps[STUDENT]])


FINDERS: dict[str, Callable[[Workspace, dict[str, Any]], Found | None]] = {
    "build-dataset": find_dataset_made,
    "distill": find_student_made,
}


def _shape(settings: Settings, *names: str) -> PlanShape:
    """Some stages of the main job; those that they need and that are not among them have to be pinned."""
    whole = whole_shape(settings)
    return whole._replace(stages=tuple(stage for stage in whole.stages if stage.name in names))


def _all_cached(plan: Plan) -> bool:
    return all(step.state == "cached" for step in plan.steps.values())


def _counts(steps: Sequence[Step]) -> Outcome:
    """Count as `FlowRun.counts` does: a paraphrase that was refused is no sample that was lost."""
    return {
        "partitions_run": 0,
        "partitions_cached": len(steps),
        "rejected": sum(entry.rejected for entry in _entries(steps)),
    }


def _entries(steps: Sequence[Step]) -> list[Entry]:
    return [step.entry for step in steps if step.entry and step.partition.stage != "prompts"]
