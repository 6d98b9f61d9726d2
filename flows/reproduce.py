"""The flow reproduce: build the dataset, distil the student, evaluate it."""

from typing import Any

from prefect import flow

from flows.build_dataset import build_dataset
from flows.distill import distill
from flows.evaluate import evaluate
from flows.run.form import Force, Overrides, Profile
from flows.track.flow_run_names import name_run


@flow(name="reproduce", flow_run_name=name_run, validate_parameters=True)
def reproduce(profile: Profile = "demo", overrides: Overrides = None, force: Force = None) -> dict[str, Any]:
    """Run all three flows in their order, each as a run below this one."""
    built = build_dataset(profile, overrides, force=force)
    distilled = distill(profile, overrides, dataset=built["dataset"], force=force)
    evaluated = evaluate(profile, overrides, student=distilled["student"], force=force)
    return {"build-dataset": built, "distill": distilled, "evaluate": evaluated}
