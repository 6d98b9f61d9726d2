"""The flow distill: a dataset in, a trained student out."""

from typing import Any

from prefect import flow

from data_catalog.config.profiles import load_settings
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
    pins = find_dataset(dataset, load_settings(profile, overrides or []))
    parameters = {"dataset": dataset}
    with open_run("distill", profile, overrides or [], pins, force or [], parameters=parameters) as run:
        run.stage("distill")
        student = register_student(run)
        return run.conclude(student=student.digest, dataset=student.dataset, metrics=student.metrics)
