"""What the flow claims consists of: the arms, and the page."""

import json
import logging
from collections.abc import Sequence
from typing import Any

import pyarrow.parquet as pq

from data_catalog.encoding import encode_json
from data_catalog.fingerprint import write_atomically
from data_catalog.places import data_root
from data_catalog.settings import Settings, load_settings
from flows.pages import flow_run_id
from flows.planning import PlanShape
from flows.session import FlowRun, open_run
from flows.tracking import Tracker
from tasks import dataset as dataset_stage
from tasks.claims import ARMS, Arm
from tasks.claims_arm import CURVE, ROWS, TIMING
from tasks.claims_page import Trained, write_page

FOLDER, RUNS = "claims", "runs.json"  # below the data root; there, the MLflow run that made each arm
NOVEL_VIEWS = 8

log = logging.getLogger(__name__)


def list_trainings(seeds: int) -> list[tuple[Arm, int]]:
    """Every arm with every seed. Seed by seed, so that an end in the middle leaves whole tables of fewer seeds."""
    return [(arm, seed) for seed in range(seeds) for arm in ARMS]


def train_arm(profile: str, overrides: Sequence[str], pins: dict[str, str], arm: Arm, seed: int, steps: int) -> Trained:
    """Train and measure one arm, unless that is done already."""
    own = load_settings(profile, list(overrides)).distill
    chosen = [f"evaluate.novel_views={NOVEL_VIEWS}", *overrides, *arm.overrides(seed, steps, own.iterations)]

    def shape(settings: Settings) -> PlanShape:
        return PlanShape((dataset_stage.STAGE, arm.stage), [], [])

    with open_run("claims", profile, chosen, pins, shape=shape) as run:
        run.stage(arm.stage.name)
        run.check()
        folder, record = run.folder(arm.stage.name), run.plan.catalog.read(run.entry(arm.stage.name))
        log.info("claims     %s, seed %d: LPIPS %.3f", arm.name, seed, record.metrics["lpips"])
        run.tracker.params(run.tracker.run_id, {"claims.arm": arm.name})
        timing = json.loads((folder / TIMING).read_text(encoding="utf-8")) if (folder / TIMING).exists() else []
        rows, curve = (pq.read_table(folder / name).to_pylist() for name in (ROWS, CURVE))
        return Trained(
            arm=arm.name,
            seed=seed,
            rows=[row | {"seed": seed} for row in rows],
            curve=[row | {"seed": seed} for row in curve],
            timing=timing,
            folder=folder,
            settings=run.settings,
            seconds=record.seconds,
            run_id=_first_run(run, arm.stage.name),
        )


def _first_run(run: FlowRun, stage: str) -> str:
    """The MLflow run that made an arm: this one, or that of an earlier call."""
    path = run.root / FOLDER / RUNS
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    digest = run.entry(stage).digest
    if run.results[stage].tally.made or digest not in known:
        known[digest] = run.tracker.run_id
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode_json(known))
    return known[digest]


def publish_claims(
    profile: str, overrides: Sequence[str], parameters: dict[str, Any], trained: Sequence[Trained]
) -> dict[str, Any]:
    """Write the page, and log its tables and pictures. Returns what the command prints."""
    root = data_root()
    told = [f"--param {name}={value}" for name, value in parameters.items()]
    command = " ".join(["stillroom run claims", *told, *(f"--set '{override}'" for override in overrides)])
    if profile != "demo":
        command += f" --profile {profile}"
    document, files = write_page(root / FOLDER, command, trained)
    tracker = Tracker(root, load_settings(profile, list(overrides)), "claims", flow_run_id())
    tracker.document(document, "claims.json")
    for path in files:
        tracker.file(path)
    tracker.finish(True)
    return {**document, "files": [str(path) for path in files], "mlflow_run_id": tracker.run_id}
