"""What the flows hand on, found again by digest: the dataset, the student, the evaluation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.catalog import Catalog
from data_catalog.errors import UserError
from data_catalog.places import data_root
from data_catalog.snapshot import Snapshot, open_snapshot, publish, snapshot_digest
from data_catalog.store import Store
from data_catalog.students import STUDENT, student_entry
from flows.running.session import FlowRun

DATASET = "dataset/all"  # the partition that holds it

Pins = dict[str, str]


@dataclass(frozen=True)
class TrainedStudent:
    """A student in the store. `digest` is that of its partition."""

    digest: str
    dataset: str
    folder: Path
    metrics: dict[str, float]


def find_dataset(digest: str) -> Pins:
    """Fix the plan to the dataset of a snapshot: `latest`, or a digest or its beginning."""
    root = data_root()
    snapshot = open_snapshot(root, None if digest == "latest" else digest)
    catalog = Catalog(Store(root))
    for entry in catalog.history(DATASET):
        if snapshot_digest(catalog.folder(entry)) == snapshot.digest:
            return {DATASET: entry.digest}
    raise UserError(
        f"the store no longer holds the dataset {snapshot.digest[:16]}",
        folder=snapshot.folder,
        hint="stillroom build",
    )


def find_student(digest: str) -> Pins:
    """Fix the plan to a student and the dataset it learned from: `latest`, or a digest or its beginning."""
    catalog = Catalog(Store(data_root()))
    entry = student_entry(catalog, digest)
    learned_from = catalog.read(entry).fingerprint_inputs["inputs"]
    return {STUDENT: entry.digest} | {key: value for key, value in learned_from.items() if key == DATASET}


def publish_dataset(run: FlowRun) -> Snapshot:
    """Take the dataset into datasets/ with card and report, and name it in MLflow."""
    from tasks.pages.report import dataset_documents

    run.check()
    folder = run.folder("dataset")
    snapshot = publish(run.root, folder, dataset_documents(folder, run.root))
    samples = snapshot.samples(["key"]).num_rows
    run.tracker.dataset(run.settings.dataset.name, snapshot.digest, snapshot.folder.as_uri(), samples)
    for name in ("README.md", "report.html"):
        run.tracker.file(snapshot.folder / name)
    return snapshot


def register_student(run: FlowRun) -> TrainedStudent:
    """Describe the student of this run and, if it is new, register it as a model with its signature."""
    from flows.tracking.registration import register

    run.check()
    folder, entry = run.folder("distill"), run.entry("distill")
    metrics = run.plan.catalog.read(entry).metrics
    student = TrainedStudent(entry.digest, name_inputs(run), folder, metrics)
    log_pictures(run, folder)
    if run.results["distill"].tally.made:
        register(run.tracker, run.settings, folder, student.digest)
    return student


def name_inputs(run: FlowRun) -> str:
    """Name dataset and student of a run in MLflow. Returns the dataset's digest."""
    digest = snapshot_digest(run.folder("dataset"))
    uri = (run.root / "datasets" / digest[:16]).as_uri()
    run.tracker.dataset(run.settings.dataset.name, digest, uri, run.entry("dataset").samples)
    run.tracker.tag("student.digest", run.entry("distill").digest)
    return digest


def log_pictures(run: FlowRun, folder: Path) -> None:
    """Copy a partition's pictures, which are small, into MLflow."""
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.gif")]):
        run.tracker.file(path, "pictures")


def publish_evaluation(run: FlowRun) -> list[dict[str, Any]]:
    """Log the table and the pictures, and renew the dataset's report with them. Returns the table's rows."""
    from tasks.pages.report import dataset_documents

    run.check()
    folder = run.folder("evaluate")
    rows: list[dict[str, Any]] = json.loads((folder / "table.json").read_text(encoding="utf-8"))["table"]
    name_inputs(run)
    run.tracker.table(rows, "table.json")
    for row in rows:
        values = {k: v for k, v in row.items() if isinstance(v, int | float)}
        method = row["method"].replace("+", "_").replace(" ", "_")
        run.tracker.metrics(run.tracker.run_id, {f"evaluate.{method}.{name}": v for name, v in values.items()})
    dataset = run.folder("dataset")
    snapshot = publish(run.root, dataset, dataset_documents(dataset, run.root, folder))
    run.tracker.file(snapshot.folder / "report.html")
    log_pictures(run, folder)
    return rows
