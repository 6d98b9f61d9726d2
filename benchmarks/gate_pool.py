"""The pseudo-labels that `benchmarks.gates` judges, of four settings of the editor, and their truth."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.products.snapshot import SAMPLES, write_snapshot_files
from data_catalog.store.execute import execute
from flows.ask.plan import open_plan
from tasks.gating.gates import Candidate, Limits
from tasks.select import judge
from tasks.tables.samples import SAMPLE_ROWS
from tasks.tables.scores import SCORE_COLUMNS

log = logging.getLogger(__name__)

PORTRAITS = 12  # of each variant; none is met by two
VARIANTS = {  # guidance by text and by picture
    "careful": (2.0, 1.2),  # the demo's
    "faithful": (2.0, 4.0),
    "eager": (7.5, 1.2),
    "careless": (15.0, 1.2),
}
STEPS = 4  # of the editor, to save time: on a few portraits it came no nearer to the truth with 10
OPEN: dict[str, Any] = dict.fromkeys(("min_clip_text", "min_clip_direction", "max_ssim"))
Row = dict[str, Any]


@dataclass(frozen=True)
class Pool:
    """All samples, and the settings that say how large pictures are."""

    rows: list[Row]
    settings: Settings

    @property
    def learned(self) -> list[Row]:
        return [row for row in self.rows if row["split"] == "train"]


def variant_settings(number: int, name: str) -> Settings:
    """The demo with an editor of this variant, other portraits, and every gate open."""
    text, picture = VARIANTS[name]
    overrides = [
        f"portraits.seed={number * PORTRAITS}",
        f"portraits.count={PORTRAITS}",
        f"portraits.block_size={PORTRAITS}",
        "portraits.test_fraction=0.25",
        f"edit.steps={STEPS}",
        f"edit.guidance_scale={text}",
        f"edit.image_guidance_scale={picture}",
        "select.min_yield=0",
        *(f"select.{gate}=null" for gate in OPEN),
    ]
    return load_settings("demo", overrides)


def make_pool(root: Path) -> Pool:
    """Make what is missing of the pool, by the stages portraits to dataset, in this process."""
    rows: list[Row] = []
    for number, name in enumerate(VARIANTS):
        settings = variant_settings(number, name)
        plan = open_plan(settings, root)
        for stage in plan.stages:
            for job in plan.resolve(stage.name):
                plan.finish(execute(job, root))
            plan.save()
            if stage.name == "dataset":
                break
        (step,) = plan.by_stage["dataset"]
        assert step.entry is not None
        made = pq.read_table(plan.catalog.folder(step.entry) / SAMPLES).to_pylist()
        rows += [row | {"variant": name} for row in made]
        log.info("%s: %d samples", name, len(made))
    return Pool(rows, settings)


def measure_truth(pool: Pool, root: Path) -> dict[str, float]:
    """By key, the share of the distance to the true edit that the pseudo-label closes (1: it is the true edit)."""
    from tasks.evaluation.metrics import true_heads
    from tasks.training.data import read_fields

    memory = root / "gates" / "truth.json"
    if memory.exists():
        known: dict[str, float] = json.loads(memory.read_text())
        return known
    closed: dict[str, float] = {}
    samples = {sample.key: sample for sample in read_pool(pool, root)}
    for portrait in sorted({row["portrait_id"] for row in pool.learned}):
        mine = [row for row in pool.learned if row["portrait_id"] == portrait]
        camera = np.asarray(mine[0]["true_camera"], np.float32)[None]
        truths = true_heads(mine[0]["portrait_seed"], camera, pool.settings.align.size, [row["style"] for row in mine])
        for row in mine:
            fields, truth = read_fields(samples[row["key"]]), truths[row["style"]]
            where, picture = truth.changed[0], truth.pictures[0].astype(float)
            if where.any():
                left = np.abs(fields.pseudo_label - picture)[where].mean()
                closed[row["key"]] = float(1 - left / np.abs(fields.portrait - picture)[where].mean())
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps(closed))
    return closed


def read_pool(pool: Pool, root: Path) -> list[Any]:
    """The pool's samples with their places in the shards."""
    from tasks.training.data import read_samples

    return read_samples(write_dataset(root, "pool", pool.rows), root)


def write_dataset(root: Path, name: str, rows: list[Row]) -> Path:
    """A dataset of some of the pool's samples."""
    folder = root / "gates" / name
    folder.mkdir(parents=True, exist_ok=True)
    write_snapshot_files(folder, pa.Table.from_pylist(rows, schema=SAMPLE_ROWS.schema), {"samples": len(rows)})
    return folder


def kept_by(rows: list[Row], gates: dict[str, Any]) -> set[str]:
    """Keys of what the gates of `select` keep, judged style by style."""
    kept: set[str] = set()
    for style in sorted({row["style"] for row in rows}):
        mine = [candidate(row) for row in rows if row["style"] == style]
        settings = load_settings("demo").select.model_copy(update=gates)
        kept |= {row.key for row in judge(mine, Limits.of(mine, settings)) if row.kept}
    return kept


def candidate(row: Row) -> Candidate:
    """A row of the dataset as the gates meet it."""
    own = {name: row[name] for name in ("key", "split", "portrait_id", "block", "attempt", *SCORE_COLUMNS)}
    return Candidate(**own, decodes=True, place=f"{row['block']:04d}")
