"""The flow build-dataset: raw portraits in, a pseudo-labelled 3D dataset out."""

from typing import Any

from data_catalog.workspace import Workspace
from flows.run.declare import flow
from flows.run.form import Cluster, Force, Only, Overrides, Profile, RunName, RunNote, RunTags
from flows.run.products import publish_dataset
from flows.run.run import on_cluster, open_run
from flows.track.labels import labelled


@flow(name="build-dataset")
def build_dataset(
    profile: Profile = "demo",
    overrides: Overrides = None,
    cluster: Cluster = None,
    force: Force = None,
    only: Only = None,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Make what is missing of a profile's dataset and publish a snapshot named by its digest."""
    workspace = Workspace.open(profile, on_cluster(overrides, cluster))
    with labelled(name, note, tags), open_run("build-dataset", workspace, force=force or [], only=only) as run:
        run.stage("portraits")  # take in, check, identify by content, split
        run.stage("align")  # crop, and find the camera
        run.stage("prompts")  # paraphrase each style's instruction
        run.stage("edit")  # the 2D editor makes the pseudo-labels
        run.stage("score")  # measure each one
        run.stage("select")  # keep the good ones, count the others by reason
        run.top_up("edit", "score", "select")  # where too few are kept: new seeds, then other prompts
        run.stage("teach")  # the 3D teacher lifts them: triplanes, views, depths
        run.stage("dataset")  # one row per sample
        snapshot = publish_dataset(run)
        return run.conclude(dataset=snapshot.digest, samples=snapshot.manifest["samples"])
