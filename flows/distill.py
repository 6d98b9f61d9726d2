"""The flow distill: a dataset in, a trained student out."""

from typing import Any

from prefect import flow

from data_catalog.workspace import Workspace
from flows.run.products import find_dataset, register_student
from flows.run.run import open_run


@flow(name="distill", flow_run_name="distill {profile}", validate_parameters=True)
def distill(
    profile: str = "demo",
    overrides: list[str] | None = None,
    dataset: str | None = None,
    force: list[str] | None = None,
) -> dict[str, Any]:
    """Train the student from the dataset of these settings, or from a named one, and register it as a model."""
    workspace = Workspace.open(profile, overrides)
    pins, parameters = find_dataset(dataset, workspace), {"dataset": dataset}
    with open_run("distill", workspace, pins, force or [], parameters=parameters) as run:
        run.stage("distill")
        student = register_student(run)
        return run.conclude(student=student.digest, dataset=student.dataset, metrics=student.metrics)
