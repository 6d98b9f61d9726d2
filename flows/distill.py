"""The flow distill: a dataset in, a trained student out."""

from typing import Any

from prefect import flow

from flows.running.products import find_dataset, register_student
from flows.running.session import open_run


@flow(name="distill", flow_run_name="distill {profile}", validate_parameters=True)
def distill(
    profile: str = "demo", overrides: list[str] | None = None, dataset: str = "latest", force: list[str] | None = None
) -> dict[str, Any]:
    """Train the student from a snapshot (its digest, the name of its student, or latest) and register it as a model."""
    pins, parameters = find_dataset(dataset), {"dataset": dataset}
    with open_run("distill", profile, overrides or [], pins, force or [], parameters=parameters) as run:
        run.stage("distill")
        student = register_student(run)
        return run.conclude(student=student.digest, dataset=student.dataset, metrics=student.metrics)
