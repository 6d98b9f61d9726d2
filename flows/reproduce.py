"""The flow reproduce: build the dataset, distil the student, evaluate it."""

from typing import Any

from prefect import flow

from flows.build_dataset import build_dataset
from flows.distill import distill
from flows.evaluate import evaluate


@flow(name="reproduce", flow_run_name="reproduce {profile}", validate_parameters=True)
def reproduce(
    profile: str = "demo", overrides: list[str] | None = None, force: list[str] | None = None
) -> dict[str, Any]:
    """Run all three flows in their order, each as a run below this one. `force`: stages or partitions to make again."""
    built = build_dataset(profile, overrides, force=force)
    distilled = distill(profile, overrides, dataset=built["dataset"], force=force)
    evaluated = evaluate(profile, overrides, student=distilled["student"], force=force)
    return {"build-dataset": built, "distill": distilled, "evaluate": evaluated}
