"""Stage pairs: the few pairs of one style for adapting a student, and those held out to measure it.

They are the editor's pseudo-labels, as the earlier stages made, judged and taught them. Samples are copied: the pairs
stay when the dataset is deleted. Pairs from a user's folder come from tasks/adaptation/folder.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.products.snapshot import SAMPLES, write_samples
from data_catalog.samples.seeds import derive
from data_catalog.samples.shard_index import read_index, write_index
from data_catalog.samples.shards import Sample, read_sample, write_shard
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.dataset import join_samples
from tasks.tables.samples import SAMPLE_ROWS, SampleRow
from tasks.teach import SHARD
from tasks.training.data import SampleRef, read_samples

LEARNED, HELD_OUT = "train", "test"  # the splits of pairs
SPARE = 1.25  # portraits edited per pair wanted: gates reject some


def run(work: Work) -> Summary:
    """Choose the pairs and copy them."""
    rows = choose_pairs(join_samples(work.inputs), work.settings)
    return write_pairs(work.folder, (copy_sample(row, work.root) for row in rows), rows)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    return settings.adapt.model_dump(include={"pairs", "held_out", "seed"})


STAGE = Stage(
    name="pairs",
    version=1,
    split_by=("style",),
    needs=tuple(Need(name) for name in ("portraits", "align", "edit", "score", "select", "teach")),
    reads=reads,
    run=run,
)


def choose_pairs(rows: Sequence[SampleRow], settings: Settings) -> list[SampleRow]:
    """Choose rows of pairs, by key. A larger choice contains a seed's smaller ones; held-out pairs never change."""
    own = settings.adapt
    lots = {row.key: derive("pairs", own.seed, row.key) for row in rows if row.split == LEARNED}
    learned = sorted(lots, key=lots.__getitem__)[: own.pairs]
    held_out = sorted(row.key for row in rows if row.split == HELD_OUT)[: own.held_out]
    if not learned or not held_out:
        raise UserError(
            "there are too few pairs to adapt with",
            to_learn=len(learned),
            to_measure=len(held_out),
            hint="more portraits: portraits.count; or looser gates: see stillroom styles",
        )
    chosen = {*learned, *held_out}
    return [row for row in rows if row.key in chosen]


def copy_sample(row: SampleRow, root: Path) -> Sample:
    """A row's sample, from the shard of the teacher's below the data root."""
    shard = root / row.shard
    return Sample(row.key, read_sample(shard, read_index(shard)[row.key]))


def write_pairs(folder: Path, samples: Iterable[Sample], rows: list[SampleRow]) -> Summary:
    """Write shard, index and samples.parquet.  samples: by key, of the rows."""
    write_index(folder, write_shard(folder / SHARD, samples))
    write_samples(folder / SAMPLES, SAMPLE_ROWS.of(replace(row, shard=SHARD) for row in rows))
    learned = sum(row.split == LEARNED for row in rows)
    return Summary(samples=len(rows), metrics={"pairs": float(learned), "held_out": float(len(rows) - learned)})


def read_pairs(folder: Path) -> tuple[list[SampleRef], list[SampleRef]]:
    """The pairs to learn from, and those held out."""
    samples = read_samples(folder, folder)
    return [s for s in samples if s.split == LEARNED], [s for s in samples if s.split == HELD_OUT]


def count_portraits(settings: Settings, pairs: int) -> int:
    """Return the number of portraits to edit: enough to learn from and to measure with."""
    own, portraits = settings.adapt, settings.portraits
    wanted = pairs / (1.0 - portraits.val_fraction - portraits.test_fraction) * SPARE
    if portraits.test_fraction:
        wanted = max(wanted, own.held_out / portraits.test_fraction)
    return math.ceil(wanted)
