"""The flow pretrain-embedded: the procedural world in, the shipped networks out."""

import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from prefect import flow

from data_catalog.errors import UserError
from data_catalog.places import data_root
from data_catalog.settings import load_settings
from flows.pages import flow_run_id, log_plainly
from flows.tracking import Tracker
from tasks.pretraining import recipes
from tasks.progress import Progress

LANES = 2  # one-thread processes side by side learn faster than one process with two threads
POLL_SECONDS = 5.0


@flow(name="pretrain-embedded", flow_run_name="pretrain-embedded", validate_parameters=True)
def pretrain_embedded(
    profile: str = "demo", overrides: list[str] | None = None, networks: list[str] | None = None
) -> dict[str, Any]:
    """Render the training pictures, train the networks (all, or those named), write weights, card and digests.

    Killed, it continues from the last checkpoints. Delete data/pretrain/<network> to train one again from nothing.
    """
    log_plainly()
    chosen = networks or list(recipes.NEEDS)
    unknown = sorted(set(chosen) - set(recipes.NEEDS))
    if unknown:
        raise UserError("no such embedded network", found=", ".join(unknown), expected=", ".join(recipes.NEEDS))
    root = data_root()
    work = root / "pretrain"
    tracker = Tracker(root, load_settings(profile, overrides or []), "pretrain-embedded", flow_run_id())
    ok = False
    try:
        with ProcessPoolExecutor(LANES, mp_context=get_context("spawn")) as pool:
            _render(pool, work)
            measured = _train(pool, work, chosen, tracker)
        tracker.file(recipes.write_card(work))
        digests = recipes.write_digests()
        ok = True
    finally:
        tracker.finish(ok)
    return {"measured": measured, "digests": digests, "mlflow_run_id": tracker.run_id}


def _render(pool: ProcessPoolExecutor, work: Path) -> None:
    from tasks.pretraining.pictures import TRAINING_SEEDS, VALIDATION_SEEDS

    blocks = [("pictures", VALIDATION_SEEDS, recipes.HELD_OUT), ("faces", VALIDATION_SEEDS, recipes.HELD_OUT)]
    blocks += [("pictures", TRAINING_SEEDS + start, recipes.BLOCK) for start in range(0, recipes.PEOPLE, recipes.BLOCK)]
    blocks += [
        ("faces", TRAINING_SEEDS + start, recipes.FACE_BLOCK) for start in range(0, recipes.FACES, recipes.FACE_BLOCK)
    ]
    for waiting in [pool.submit(recipes.render, work, *block) for block in blocks]:
        waiting.result()


def _train(pool: ProcessPoolExecutor, work: Path, chosen: list[str], tracker: Tracker) -> dict[str, dict[str, float]]:
    """First the networks that need no other, then the rest; curves go to MLflow while they grow."""
    measured: dict[str, dict[str, float]] = {}
    first = [name for name in chosen if not recipes.NEEDS[name]]
    for wave in (first, [name for name in chosen if name not in first]):
        with ThreadPoolExecutor(LANES) as watchers:
            done = watchers.map(lambda name: _train_one(pool, work, name, tracker), wave)
            measured |= dict(zip(wave, done, strict=True))
    return measured


def _train_one(pool: ProcessPoolExecutor, work: Path, name: str, tracker: Tracker) -> dict[str, float]:
    with tracker.stage(name) as log:
        future = pool.submit(recipes.train_network, name, work)
        told = 0
        while True:
            finished = future.done()
            points = recipes.read_curve(work, name)
            for point in points[told:]:
                log.hear(Progress(int(point.pop("step")), metrics=point))
            told = len(points)
            if finished:
                break
            time.sleep(POLL_SECONDS)
        measured = future.result()
        tracker.metrics(log.run_id, {f"measured.{key}": value for key, value in measured.items()})
        return measured
