"""Products of the flows, found by digest: the dataset, the student, the evaluation."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.snapshot import SAMPLES, Snapshot, publish, snapshot_digest
from data_catalog.products.students import open_dataset, student_entry
from data_catalog.store.catalog import Catalog
from data_catalog.workspace import Workspace
from flows.run.history import maker_of, note_maker
from flows.track.mlflow_runs import numbers
from flows.track.model_versions import log_measures
from flows.track.prefect_pages import show_table
from tasks.datasets.made import dataset_of, is_own, student_of

if TYPE_CHECKING:
    from flows.run.run import FlowRun

Pins = dict[str, str]

HEADLINE = ("id", "clip", "three_d", "lpips", "l1_changed", "improvement", "seconds_per_image")
GATES = ("edit", "score", "select", "teach")  # stages in which samples are rejected

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedStudent:
    """Student in the store. `digest` is that of its partition."""

    digest: str
    dataset: str
    metrics: dict[str, float]


def find_dataset(digest: str | None, workspace: Workspace) -> Pins:
    """Fix the plan to a dataset: the newest that these settings made, or that of a snapshot.

    digest: of the snapshot, its beginning, or `latest`; None for the one of the settings.
    """
    catalog = workspace.catalog
    if digest is None:
        return {DATASET: dataset_of(catalog, workspace.settings).digest}
    snapshot = open_dataset(workspace.root, digest)
    for entry in catalog.history(DATASET):
        if snapshot_digest(catalog.folder(entry)) == snapshot.digest:
            return {DATASET: entry.digest}
    raise UserError(
        f"the store no longer holds the dataset {snapshot.digest[:16]}",
        folder=snapshot.folder,
        hint="stillroom build",
    )


def find_student(digest: str | None, workspace: Workspace, dataset: str | None = None) -> Pins:
    """Fix the plan to a student, of these settings or a named one, and to the dataset it learned from.

    An imported student, whose dataset is not here, takes that of the settings.

    digest: of the student, its beginning, or `latest`; None for the one of the settings.  dataset: a snapshot to
    examine it on instead. Raises UserError if the student was trained on test data.
    """
    catalog = workspace.catalog
    entry = student_of(catalog, workspace.settings) if digest is None else student_entry(catalog, digest)
    learned_from = catalog.read(entry).fingerprint_inputs["inputs"]
    own = {key: value for key, value in learned_from.items() if key == DATASET}
    examined = own if own and dataset is None else find_dataset(dataset, workspace)
    if not own:
        log.warning("the student was imported: whether it met these portraits in its training is not known")
    elif examined != own:
        check_never_met(*(_samples_of(catalog, pins[DATASET]) for pins in (own, examined)))
    return {STUDENT: entry.digest} | examined


def check_never_met(learned: pa.Table, examined: pa.Table) -> None:
    """Raise if the student learned a portrait or prompt of the examined dataset's test split."""
    met = learned.filter(pc.field("split") != "test")
    tested = examined.filter(pc.field("split") == "test")
    for column in ("portrait_id", "prompt"):
        both = sorted(set(met.column(column).to_pylist()) & set(tested.column(column).to_pylist()))
        if both:
            raise UserError(
                f"the student was trained on test data: {len(both)} of the {column} column",
                first=both[0],
                hint="portraits of another portraits.seed or source, and the test prompts of the same style files",
            )


def _samples_of(catalog: Catalog, digest: str) -> pa.Table:
    """Return the columns of a dataset's partition that a leak would show in."""
    entry = next((each for each in catalog.history(DATASET) if each.digest == digest), None)
    if entry is None:
        raise UserError("the store no longer holds the dataset that the student learned from", digest=digest)
    return pq.read_table(catalog.folder(entry) / SAMPLES, columns=["portrait_id", "prompt", "split"])


def publish_dataset(run: "FlowRun") -> Snapshot:
    """Take the dataset into datasets/ with card and report, and name it in MLflow.

    It becomes the latest only if the profile's own settings made it: an experiment does not change the default.
    """
    from tasks.reports.dataset import dataset_documents

    run.check()
    folder = run.folder("dataset")
    snapshot = publish(run.root, folder, dataset_documents(folder, run.root), as_latest=is_own(run.settings))
    run.snapshot = snapshot.folder
    samples = snapshot.samples(["key"]).num_rows
    run.tracker.dataset(run.settings.dataset.name, snapshot.digest, snapshot.folder, samples)
    rejected = sum(step.entry.rejected for name in GATES for step in run.plan.by_stage[name] if step.entry)
    run.tracker.result({"samples": samples, "yield": samples / max(samples + rejected, 1)})
    for name in ("README.md", "report.html"):
        run.tracker.file(snapshot.folder / name)
    _note_maker(run, "dataset", snapshot.digest)
    return snapshot


def register_student(run: "FlowRun") -> TrainedStudent:
    """Describe the student of this run and, if it is new, register it as a model with its signature."""
    from flows.track.registration import register

    run.check()
    entry = run.entry("distill")
    metrics = run.plan.catalog.read(entry).metrics
    run.tracker.result(
        {"samples": entry.samples} | {name: metrics.get(name) for name in ("loss", "val_l1", "val_lpips")}
    )
    student = TrainedStudent(entry.digest, name_inputs(run), metrics)
    log_pictures(run, run.folder("distill"))
    if run.results["distill"].tally.made:
        register(run.tracker, run.settings, run.plan.catalog, entry)
    _note_maker(run, "distill", entry.digest)
    return student


def _note_maker(run: "FlowRun", stage: str, digest: str) -> None:
    """Note this run as the one that made a product, or that went on where the one that made it was interrupted."""
    if run.results[stage].tally.made or maker_of(run.root, digest) is None:
        note_maker(run.root, digest, run.tracker.run_id)


def name_inputs(run: "FlowRun") -> str:
    """Name dataset and student of a run in MLflow. Returns the dataset's digest."""
    digest = snapshot_digest(run.folder("dataset"))
    folder = run.root / "datasets" / digest[:16]
    run.tracker.dataset(run.settings.dataset.name, digest, folder, run.entry("dataset").samples)
    run.tracker.tag("student.digest", run.entry("distill").digest)
    return digest


def log_judgement(run: "FlowRun", row: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Log the student's measures in this run, and with the run and the model version that have the student.

    Measures on another dataset than the student's own stay with this run.
    """
    entry = run.entry("distill")
    results = numbers({name: row.get(name) for name in HEADLINE} | {"speedup": found["speedup"]})
    run.tracker.result(results)
    learned_from = run.plan.catalog.read(entry).fingerprint_inputs.get("inputs", {}).get(DATASET)
    if learned_from == run.entry("dataset").digest:
        measures = {f"evaluate.student.{name}": value for name, value in numbers(row).items()}
        tracker = run.tracker
        tracker.tell("measures", lambda: log_measures(tracker.client, entry.digest, results, measures))


def log_pictures(run: "FlowRun", folder: Path) -> None:
    """Copy a partition's pictures, which are small, into MLflow."""
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.gif")]):
        run.tracker.file(path, "pictures")


def publish_evaluation(run: "FlowRun") -> dict[str, Any]:
    """Log the table and the pictures, and renew the dataset's report with them.

    Returns what was found, its pictures aside: the rows of `table`, the same by style, intervals, the speedup; and the
    paths of the dataset's report and of the sheet of pictures.
    """
    from tasks.evaluation.table import STUDENT as METHOD
    from tasks.reports.dataset import dataset_documents

    run.check()
    folder = run.folder("evaluate")
    found: dict[str, Any] = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    rows = found["table"]
    name_inputs(run)
    run.tracker.table(rows, "table.json", "method")
    show_table("evaluation", rows, "The student and its teachers, on held-out portraits and prompts")
    log_judgement(run, next(row for row in rows if row["method"] == METHOD), found)
    dataset = run.folder("dataset")
    snapshot = publish(run.root, dataset, dataset_documents(dataset, run.root, folder), as_latest=False)
    run.tracker.file(snapshot.folder / "report.html")
    log_pictures(run, folder)
    _note_maker(run, "evaluate", run.entry("evaluate").digest)
    places = {"report": str(snapshot.folder / "report.html"), "sheet": str(folder / "evaluation.png")}
    shown = {name: value for name, value in found.items() if name != "pictures"}
    return {"student": run.entry("distill").digest, "dataset": snapshot.digest, **shown, **places}
