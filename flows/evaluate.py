"""The flow evaluate: a student in, the table that compares it with its teachers out."""

from typing import Any

from data_catalog.workspace import Workspace
from flows.run.declare import flow
from flows.run.form import Force, OtherDataset, Overrides, Profile, RunName, RunNote, RunTags, StudentName
from flows.run.products import find_student, publish_evaluation
from flows.run.run import open_run
from flows.track.labels import labelled


@flow(name="evaluate")
def evaluate(
    profile: Profile = "demo",
    overrides: Overrides = None,
    student: StudentName = None,
    dataset: OtherDataset = None,
    force: Force = None,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Evaluate the student of these settings, or a named one, on held-out portraits and prompts; renew the report."""
    workspace = Workspace.open(profile, overrides)
    pins, parameters = find_student(student, workspace, dataset), {"student": student, "dataset": dataset}
    with labelled(name, note, tags), open_run("evaluate", workspace, pins, force or [], parameters=parameters) as run:
        run.stage("evaluate")
        found = publish_evaluation(run)
        return run.conclude(**found)
