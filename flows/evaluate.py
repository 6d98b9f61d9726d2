"""The flow evaluate: a student in, the table that compares it with its teachers out."""

from typing import Any

from prefect import flow

from flows.running.products import find_student, publish_evaluation
from flows.running.session import open_run


@flow(name="evaluate", flow_run_name="evaluate {profile}", validate_parameters=True)
def evaluate(
    profile: str = "demo",
    overrides: list[str] | None = None,
    student: str = "latest",
    dataset: str | None = None,
    force: list[str] | None = None,
) -> dict[str, Any]:
    """Evaluate a student (its name or digest, or latest) on held-out portraits and prompts, and renew the report.

    `dataset`: a snapshot of other portraits to do it on (its digest, or latest) instead of the student's own.
    """
    pins, parameters = find_student(student, dataset), {"student": student, "dataset": dataset}
    with open_run("evaluate", profile, overrides or [], pins, force or [], parameters=parameters) as run:
        run.stage("evaluate")
        found = publish_evaluation(run)
        return run.conclude(**found)
