"""The flow reproduce: build the dataset, distil the student, evaluate it."""

from typing import Any

from flows.build_dataset import build_dataset
from flows.distill import distill
from flows.evaluate import evaluate
from flows.run.declare import flow
from flows.run.form import Force, Overrides, Profile, RunName, RunNote, RunTags


@flow(name="reproduce")
def reproduce(
    profile: Profile = "demo",
    overrides: Overrides = None,
    force: Force = None,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Run all three flows in their order, each as a run below this one."""
    labels: dict[str, Any] = {"name": name, "note": note, "tags": tags}
    built = build_dataset(profile, overrides, force=force, **labels)
    distilled = distill(profile, overrides, dataset=built["dataset"], force=force, **labels)
    evaluated = evaluate(profile, overrides, student=distilled["student"], force=force, **labels)
    return {"build-dataset": built, "distill": distilled, "evaluate": evaluated}
