"""The flow distill: a dataset in, a trained student out."""

from typing import Any

from data_catalog.workspace import Workspace
from flows.run.declare import flow
from flows.run.form import DatasetName, Force, Overrides, Profile, RunName, RunNote, RunTags
from flows.run.products import find_dataset, register_student
from flows.run.run import open_run
from flows.track.labels import labelled


@flow(name="distill")
def distill(
    profile: Profile = "demo",
    overrides: Overrides = None,
    dataset: DatasetName = None,
    force: Force = None,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Train the student from the dataset of these settings, or from a named one, and register it as a model."""
    workspace = Workspace.open(profile, overrides)
    pins, parameters = find_dataset(dataset, workspace), {"dataset": dataset}
    with labelled(name, note, tags), open_run("distill", workspace, pins, force or [], parameters=parameters) as run:
        run.stage("distill")
        student = register_student(run)
        return run.conclude(student=student.digest, dataset=student.dataset, metrics=student.metrics)
