"""Flow adapt-style: from a student and a few pairs to a small delta for one more style."""

from typing import Annotated, Any

from data_catalog.workspace import Workspace
from flows.run.adaptation import adapt_settings, adapt_shape, make_samples, publish_adapted
from flows.run.declare import flow
from flows.run.form import Force, Overrides, Profile, RunName, RunNote, RunTags, StudentName, shown
from flows.run.products import find_student
from flows.run.run import open_run
from flows.track.labels import labelled

PAIRS = "Folder of your own pairs: input/ and edited/ pictures of equal names; empty: pairs are made."
PROMPT = "What the edit does, in words, where the style has no file."


@flow(name="adapt-style")
def adapt_style(
    style: Annotated[str, shown("string", "A file of the styles folder by its name, or the name of the new style.")],
    profile: Profile = "demo",
    overrides: Overrides = None,
    student: StudentName = None,
    pairs: Annotated[str | None, shown("string", PAIRS)] = None,
    prompt: Annotated[str | None, shown("string", PROMPT)] = None,
    force: Force = None,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Adapt the student of these settings, or a named one, to a style file or to the user's own pairs."""
    workspace = Workspace.open(profile, adapt_settings(overrides or [], pairs, prompt))
    parameters = {"style": style, "student": student, "pairs": pairs, "prompt": prompt}
    shape, pins = adapt_shape(style), find_student(student, workspace)
    with (
        labelled(name, note, tags),
        open_run("adapt-style", workspace, pins, force or [], None, parameters, shape) as run,
    ):
        if pairs is None:
            make_samples(run)  # portraits to teach, for as many portraits as hold enough pairs
        run.stage("pairs")  # choose those to learn from and those to measure with
        run.stage("adapt")  # E_p and the normalisation layers of E_t learn, by the clock
        return run.conclude(**publish_adapted(run))
