"""The flow claims: claims of the paper, each checked in this world if it can be measured there, on one page (3DPE)."""

import json
import logging
from collections.abc import Sequence
from typing import Annotated, Any

import pyarrow.parquet as pq

from data_catalog.config.settings import Settings
from data_catalog.workspace import Workspace
from flows.ask.plan import PlanShape
from flows.lab.arms import ArmWork, Kept, keep_arms, tell_command
from flows.run.declare import flow
from flows.run.form import DatasetName, Overrides, Profile, Seeds, shown
from flows.run.lifecycle import tracked
from flows.run.products import find_dataset
from tasks import dataset as dataset_stage
from tasks.lab.claims.arm import CURVE, ROWS, TIMING
from tasks.lab.claims.claims import Arm, arms_of
from tasks.lab.claims.page import Trained, write_page

FOLDER = "claims"  # below the data root
NOVEL_VIEWS = 8
ITERATIONS = "Steps of the arms that differ in their objective; empty: 400, in the paper world the profile's."

log = logging.getLogger(__name__)


@flow(name="claims")
def claims(
    profile: Profile = "demo",
    overrides: Overrides = None,
    dataset: DatasetName = None,
    seeds: Seeds = 3,
    iterations: Annotated[int | None, shown("integer", ITERATIONS)] = None,
) -> dict[str, Any]:
    """Train the arms of the claims from a dataset; write table, figure and verdict of each claim.

    Results are stored as they are made: a killed run resumes, and runs side by side share the trainings.
    """
    workspace = Workspace.open(profile, overrides)
    pins = find_dataset(dataset, workspace)
    # Seed by seed: an interrupted run leaves complete tables of fewer seeds.
    trainings = [(arm, seed) for seed in range(seeds) for arm in arms_of(workspace.settings.world)]
    trained = train_arms(workspace, pins, trainings, iterations)
    given = {} if iterations is None else {"iterations": iterations}
    return publish_claims(workspace, {"seeds": seeds, **given}, trained)


def train_arms(
    workspace: Workspace, pins: dict[str, str], trainings: Sequence[tuple[Arm, int]], steps: int | None
) -> list[Trained]:
    """Train and measure the missing arms."""
    works = {
        (arm.name, seed): _arm_work(workspace, arm.overrides(seed, steps, workspace.settings), pins, arm)
        for arm, seed in trainings
    }
    trained = {}
    for (name, seed), kept in keep_arms("claims", works):
        log.info("claims     %s, seed %d: LPIPS %.3f", name, seed, kept.metrics["lpips"])
        trained[name, seed] = _read_arm(name, seed, kept)
    return [trained[asked] for asked in works]


def _arm_work(workspace: Workspace, overrides: Sequence[str], pins: dict[str, str], arm: Arm) -> ArmWork:
    def shape(settings: Settings) -> PlanShape:
        return PlanShape((dataset_stage.STAGE, arm.stage), [], [])

    chosen = workspace.with_defaults(f"evaluate.novel_views={NOVEL_VIEWS}").with_overrides(*overrides)
    return ArmWork(chosen, pins, shape, [arm.stage.name], {"claims.arm": arm.name}, with_samples=False)


def _read_arm(name: str, seed: int, kept: Kept) -> Trained:
    timing = kept.folder / TIMING
    rows, curve = (pq.read_table(kept.folder / name).to_pylist() for name in (ROWS, CURVE))
    return Trained(
        arm=name,
        seed=seed,
        rows=[row | {"seed": seed} for row in rows],
        curve=[row | {"seed": seed} for row in curve],
        timing=json.loads(timing.read_text(encoding="utf-8")) if timing.exists() else [],
        folder=kept.folder,
        settings=kept.settings,
        seconds=kept.seconds,
        run_id=kept.run_id,
    )


def publish_claims(workspace: Workspace, parameters: dict[str, Any], trained: Sequence[Trained]) -> dict[str, Any]:
    """Write the page, and log its tables and pictures. Returns the values that the command prints."""
    start = ["stillroom run claims", *(f"--param {name}={value}" for name, value in parameters.items())]
    command = tell_command(" ".join(start), workspace)
    document, files = write_page(workspace.root / FOLDER, command, trained)
    with tracked(workspace, "claims") as (tracker, _):
        tracker.document(document, "claims.json")
        for path in files:
            tracker.file(path)
    return {**document, "files": [str(path) for path in files], "mlflow_run_id": tracker.run_id}
