"""A store of tens of thousands of partitions, and a snapshot of a million samples, made quickly."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import tasks.stages
from benchmarks.instant_stages import STAGES
from data_catalog.config.profiles import load_settings
from data_catalog.products.snapshot import SAMPLES, Snapshot, write_samples
from data_catalog.store.execute import execute
from flows.ask.plan import open_plan


def fill_store(root: Path, settings: dict[str, Any]) -> int:
    """Make every partition up to the dataset. Returns how many there are.

    In a process of its own: a command that is measured afterwards would count the pages of its parent as its own.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_fill, (root, settings))


def _fill(root: Path, settings: dict[str, Any]) -> int:
    tasks.stages.STAGES = STAGES
    synced = os.fsync
    os.fsync = lambda fd: None  # a power cut may cost us a benchmark
    try:
        root.mkdir(parents=True, exist_ok=True)
        plan = open_plan(load_settings("demo", [f"{name}={value}" for name, value in settings.items()]), root)
        for stage in plan.stages:
            if stage.name in ("distill", "evaluate"):
                continue
            for job in plan.resolve(stage.name):
                plan.finish(execute(job, root))
        plan.save()
    finally:
        os.fsync = synced
    return sum(step.made for step in plan.steps.values())


def make_samples(count: int, styles: int = 20, seed: int = 0) -> pa.Table:
    """A table with the columns of a snapshot that a query asks for, and its widest one."""
    random = np.random.default_rng(seed)
    style = random.integers(0, styles, count)
    camera = pa.array(random.standard_normal(count * 25, dtype=np.float32))
    return pa.table(
        {
            "key": [f"p{number:010x}-style-{which:02d}-0-0" for number, which in enumerate(style)],
            "style": [f"style-{which:02d}" for which in style],
            "portrait_id": [f"p{number:010x}" for number in range(count)],
            "camera": pa.FixedSizeListArray.from_arrays(camera, 25),
            "score_identity": random.random(count),
            "score_clip_text": random.random(count),
        }
    )


def query_million(work: Path, count: int) -> dict[str, Any]:
    """Seconds of a query by style and score over `count` samples; the best of three, each from the file."""
    folder = work / "samples"
    folder.mkdir(parents=True)
    write_samples(folder / SAMPLES, make_samples(count))
    snapshot = Snapshot("", folder)
    wanted = (pc.field("style") == "style-07") & (pc.field("score_identity") > 0.9)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        found = snapshot.samples(["key", "score_identity"], wanted).num_rows
        times.append(time.perf_counter() - started)
    size = (folder / SAMPLES).stat().st_size
    return {"samples": count, "found": found, "query_s": round(min(times), 3), "file_mb": round(size / 1e6, 1)}
