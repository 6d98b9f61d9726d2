"""The flow claims: five claims of the paper, each checked in this world, on one page (3DPE)."""

from typing import Any

from prefect import flow

from data_catalog.config.profiles import load_settings
from flows.lab.claims_arms import list_trainings, publish_claims, train_arms
from flows.run.products import find_dataset


@flow(name="claims", flow_run_name="claims {profile}", validate_parameters=True)
def claims(
    profile: str = "demo",
    overrides: list[str] | None = None,
    dataset: str | None = None,
    seeds: int = 3,
    iterations: int = 400,
) -> dict[str, Any]:
    """Train what the claims compare from a dataset; write table, figure and verdict of each.

    `dataset`: null for the one of these settings.  `iterations`: of the arms that differ in their objective.
    Everything is kept as it is made: a run that was killed goes on, and runs that are started side by side share the
    trainings.
    """
    chosen = overrides or []
    pins = find_dataset(dataset, load_settings(profile, chosen))
    trained = train_arms(profile, chosen, pins, list_trainings(seeds), iterations)
    return publish_claims(profile, chosen, {"seeds": seeds, "iterations": iterations}, trained)
