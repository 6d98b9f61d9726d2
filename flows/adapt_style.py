"""Flow adapt-style: from a student and a few pairs to a small delta for one more style."""

from typing import Any

from prefect import flow

from data_catalog.workspace import Workspace
from flows.run.adaptation import adapt_settings, adapt_shape, make_samples, publish_adapted
from flows.run.products import find_student
from flows.run.run import open_run


@flow(name="adapt-style", flow_run_name="adapt-style {style} {profile}", validate_parameters=True)
def adapt_style(
    style: str,
    profile: str = "demo",
    overrides: list[str] | None = None,
    student: str | None = None,
    pairs: str | None = None,
    prompt: str | None = None,
    force: list[str] | None = None,
) -> dict[str, Any]:
    """Adapt the student of these settings, or a named one, to a style file or to the user's own pairs.

    `style` names a file in the styles folder, or the new style.  `pairs` is a folder with input/ and edited/ pictures
    of equal names; `prompt` says in words what was done to them, where the style has no file.
    """
    workspace = Workspace.open(profile, adapt_settings(overrides or [], pairs, prompt))
    parameters = {"style": style, "student": student, "pairs": pairs, "prompt": prompt}
    shape, pins = adapt_shape(style), find_student(student, workspace)
    with open_run("adapt-style", workspace, pins, force or [], None, parameters, shape) as run:
        if pairs is None:
            make_samples(run)  # portraits to teach, for as many portraits as hold enough pairs
        run.stage("pairs")  # choose those to learn from and those to measure with
        run.stage("adapt")  # E_p and the normalisation layers of E_t learn, by the clock
        return run.conclude(**publish_adapted(run))
