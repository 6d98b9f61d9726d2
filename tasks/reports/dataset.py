"""Documents beside a dataset: its card (README.md) and a self-contained report with pictures."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_catalog.products.keys import DATASET, EVALUATION
from data_catalog.products.snapshot import DOCUMENTS, MANIFEST, SAMPLES, snapshot_digest
from data_catalog.store.catalog import Catalog
from data_catalog.store.store import Store, read_record
from tasks.datasets.origins import flatten
from tasks.language.encoder import read_notes
from tasks.pictures.inline import colour_depth, embed_picture, make_strip
from tasks.reports.evaluation import describe_evaluation
from tasks.reports.rejected import show_reasons, show_rejected
from tasks.score import median_of_known
from tasks.sources.photographs import HEADS_ONLY, beyond_networks
from tasks.tables.samples import LOST, LostRow
from tasks.tables.scores import PHOTO_MEASURES
from tasks.templates import render
from tasks.training.data import SampleRef, read_fields, read_samples

ROWS_PER_STYLE, TEST_ROWS = 6, 2
REJECTED_PER_STYLE = 6
VIEWS_SHOWN = 4
SHOWN_MEDIANS = ("score_teacher_lpips", "score_view_identity", *PHOTO_MEASURES)

Row = dict[str, Any]


def dataset_documents(folder: Path, root: Path, evaluation: Path | None = None) -> dict[str, bytes]:
    """README.md, report.html and rejected.html of the dataset in `folder`, a partition of the stage dataset.

    root: the data root, where the shards are.  evaluation: the folder of the evaluation that the report shows;
    when None, the newest one of a student that learned from this dataset, if there is any.
    """
    evaluation = evaluation or find_evaluation(folder, root)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    samples = read_samples(folder, root)
    rejected = LOST.read(folder)
    shared = {"manifest": manifest, "digest": snapshot_digest(folder), "rejected": count_rejected(rejected)}
    card = render("card.md.j2", **shared, **describe_files(folder, samples))
    page = render(
        "report.html.j2",
        **shared,
        styles=[show_style(style, samples, rejected, manifest, root) for style in manifest["styles"]],
        evaluation=None if evaluation is None else describe_evaluation(evaluation),
        settings=flatten(manifest["settings"]),
        splits=Counter(sample.split for sample in samples),
        beyond=HEADS_ONLY if beyond_networks(manifest["world"], manifest["settings"]["portraits"]["source"]) else None,
    )
    lost = render("rejected.html.j2", **shared, groups=show_reasons(rejected, root))
    return {name: text.encode() for name, text in zip(DOCUMENTS, (card, page, lost), strict=True)}


def find_evaluation(folder: Path, root: Path) -> Path | None:
    """The newest evaluation on the dataset in `folder`: making the report again must not lose it."""
    dataset, catalog = read_record(folder), Catalog(Store(root))
    for entry in catalog.history(EVALUATION) if dataset else []:
        inputs = catalog.read(entry).fingerprint_inputs.get("inputs", {})
        if dataset and inputs.get(DATASET) == dataset.digest and not catalog.problems(entry):
            return catalog.folder(entry)
    return None


def count_rejected(rejected: list[LostRow]) -> list[Row]:
    """Count what was lost by stage and reason, most first."""
    counts = Counter((row.stage, row.reason) for row in rejected)
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return [{"stage": stage, "reason": reason, "count": count} for (stage, reason), count in ordered]


def describe_files(folder: Path, samples: list[SampleRef]) -> Row:
    """Describe the columns, shard fields and size for the card."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    category = next((name for bound, name in bounds if len(samples) < bound), "100K<n<1M")
    return {
        "columns": pq.read_schema(folder / SAMPLES).names,
        "fields": sorted(samples[0].entry.fields) if samples else [],
        "size_category": category,
    }


def show_style(style: str, samples: list[SampleRef], rejected: list[LostRow], manifest: Row, root: Path) -> Row:
    """Gather all that the report says about one style."""
    mine = [sample for sample in samples if sample.style == style]
    lost = [row for row in rejected if row.style == style]
    chosen = choose_samples(mine)
    return {
        "slug": style,
        "counts": manifest["styles"][style],
        "funnel": manifest["funnels"][style],
        "rows": [show_sample(sample) for sample in chosen],
        "columns": sample_columns(chosen),
        "medians": style_medians(mine, manifest["funnels"][style]["medians"]),
        "unknown": read_notes(manifest["world"])(min((each.prompt for each in mine), key=len)) if mine else [],
        "rejected": [shown for row in lost[:REJECTED_PER_STYLE] if (shown := show_rejected(row, root))],
        "rejected_count": len(lost),
    }


def style_medians(samples: list[SampleRef], gated: dict[str, float]) -> dict[str, float | None]:
    """Return the medians that explain a style's yield, those of the teacher, and those that photographs have.

    gated: those of the gated scores over all that was made.
    """
    found = {name: median_of_known([sample.scores[name] for sample in samples]) for name in SHOWN_MEDIANS}
    return gated | {name: value for name, value in found.items() if value is not None or name not in PHOTO_MEASURES}


def choose_samples(samples: list[SampleRef]) -> list[SampleRef]:
    """Choose samples fairly: from the best to the worst kept one, then the first of the test split."""
    learned = sorted((s for s in samples if s.split != "test"), key=lambda s: (s.rank or 0, s.key))
    tested = [sample for sample in samples if sample.split == "test"][:TEST_ROWS]
    count = min(ROWS_PER_STYLE - len(tested), len(learned))
    places: np.ndarray = np.linspace(0, len(learned) - 1, count).round().astype(int)
    return [learned[place] for place in dict.fromkeys(places)] + tested


def sample_columns(samples: list[SampleRef]) -> list[str]:
    """Return the titles of the cells in a sample's strip."""
    count = len(read_fields(samples[0]).views[:VIEWS_SHOWN]) if samples else 0
    return ["portrait", "pseudo-label", *(f"teacher view {i + 1}" for i in range(count)), "depth"]


def show_sample(sample: SampleRef) -> Row:
    """Draw the strip of a sample: portrait, pseudo-label, the teacher's views, depth from the portrait's camera."""
    fields = read_fields(sample)
    cells = [fields.portrait, fields.pseudo_label, *fields.views[:VIEWS_SHOWN], colour_depth(fields.depths[0])]
    own = {"key": sample.key, "prompt": sample.prompt, "split": sample.split, "scores": sample.scores}
    return own | {"strip": embed_picture(make_strip(cells))}
