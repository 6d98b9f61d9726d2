"""Stage dataset: a row for each taught sample, and a manifest of its origin.

Card and report are documents beside the snapshot (see `tasks.reports.dataset`); they are in no digest.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.settings import DatasetSettings, Settings
from data_catalog.config.styles import list_styles, read_style, style_path
from data_catalog.products.snapshot import write_snapshot_files
from data_catalog.store.stage import Input, Need, Partition, Stage, Summary, Work
from tasks.edit import GIVEN_FIELDS
from tasks.portraits import LICENCE_FIELDS
from tasks.score import MEASURES
from tasks.teach import SHARD

# Stages of a sample, in their order.
MADE_FROM = ("portraits", "align", "prompts", "edit", "score", "select", "teach")
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("style", pa.string()),
        ("prompt", pa.string()),
        ("prompt_number", pa.int32()),
        ("prompt_split", pa.string()),
        ("portrait_id", pa.string()),
        ("split", pa.string()),
        ("block", pa.int32()),
        ("shard", pa.string()),  # path below the data root
        ("camera", pa.list_(pa.float32(), 25)),
        ("camera_source", pa.string()),
        # Not a fixed-size list, which Parquet readers refuse where a value is null.
        ("true_camera", pa.list_(pa.float64())),  # of the aligned picture; null outside the procedural world
        ("portrait_seed", pa.int64()),  # of the procedural world; null elsewhere
        ("seed", pa.int64()),
        ("attempt", pa.int32()),
        *((name, pa.float64()) for name in MEASURES),
        ("score_constant", pa.bool_()),
        ("score_unsafe", pa.bool_()),
        ("score_teacher_lpips", pa.float64()),
        ("score_view_identity", pa.float64()),
        ("rank", pa.int32()),
        ("image_prompt", pa.bool_()),  # serves as an image prompt of its style
        ("pseudo_label_digest", pa.string()),
    ]
)
REJECTED = "rejected.parquet"
REJECTED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # a sample's key, or a portrait's id
        ("style", pa.string()),  # null for a portrait
        ("split", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("picture", pa.string()),  # path of the pseudo-label below the data root; null where there is none
        ("portrait", pa.string()),  # path of the aligned portrait; null where there is none
        *((name, pa.float64()) for name in MEASURES),
    ]
)
Row = dict[str, Any]


def run(work: Work) -> Summary:
    """Join the stages' rows of each taught sample, and drop samples that the teacher renders badly."""
    taught = join_samples(work.inputs)
    reasons = {row["key"]: teacher_verdict(row, work.settings.dataset) for row in taught}
    rows = [row for row in taught if not reasons[row["key"]]]
    optional = [field for group in (LICENCE_FIELDS, GIVEN_FIELDS) if _any_has(rows, group[0][0]) for field in group]
    schema = pa.schema([*SCHEMA, *optional])
    write_snapshot_files(work.folder, pa.Table.from_pylist(rows, schema=schema), make_manifest(rows, work))
    lost = list_rejected(work.inputs, reasons)
    pq.write_table(pa.Table.from_pylist(lost, schema=REJECTED_SCHEMA), work.folder / REJECTED)
    splits = {split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")}
    metrics = {f"samples_{split}": float(count) for split, count in splits.items()}
    return Summary(samples=len(rows), metrics=metrics)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    return chosen_settings(settings) | style_licences(settings)


def chosen_settings(settings: Settings) -> dict[str, Any]:
    """List the settings that decide on the dataset; values of its style files are not among them."""
    return settings.dataset.model_dump(exclude_none=True) | {"profile": settings.profile, "recipe": recipe(settings)}


STAGE = Stage(
    name="dataset",
    version=1,
    needs=tuple(Need(name) for name in MADE_FROM),
    reads=reads,
    run=run,
)


def recipe(settings: Settings) -> dict[str, Any]:
    """Return the settings that the samples were made with; settings of the execution are left out."""
    return {stage: getattr(settings, stage).model_dump(mode="json", exclude={"batch_size"}) for stage in MADE_FROM}


def style_licences(settings: Settings) -> dict[str, Any]:
    """Return the licence notes of the style files; empty without any."""
    notes = {slug: read_style(style_path(settings, slug)).licence for slug in list_styles(settings)}
    given = {slug: note for slug, note in notes.items() if note}
    return {"style_licences": given} if given else {}


def join_samples(inputs: dict[str, list[Input]]) -> list[Row]:
    """Return a row of `SCHEMA` for each sample that the teacher taught."""
    portraits = _rows_by(inputs["align"], "align.parquet", "portrait_id")
    taken = _rows_by(inputs["portraits"], "portraits.parquet", "portrait_id")
    edits = _rows_by(inputs["edit"], "edit.parquet", "key")
    scores = _rows_by(inputs["score"], "score.parquet", "key")
    chosen = _rows_by(inputs["select"], "select.parquet", "key")
    image_prompts = {key for select in inputs["select"] for key in read_image_prompts(select)}
    samples: list[Row] = []
    for taught in inputs["teach"]:
        shard = f"{stored_at(taught)}/{SHARD}"
        for row in _read(taught, "teach.parquet"):
            if row["status"] != "ok":
                continue
            key = row["key"]
            portrait = portraits[edits[key]["portrait_id"]]
            own = {"rank": chosen[key]["rank"], "block": taught.partition.block, "shard": shard}
            face = {
                "camera": portrait["camera"],
                "camera_source": portrait["camera_source"],
                "true_camera": portrait["true_camera"],
                "portrait_seed": portrait["seed"],
            }
            photograph = taken[portrait["portrait_id"]]
            face |= {name: photograph[name] for name, _ in LICENCE_FIELDS if name in photograph}
            samples.append(scores[key] | row | edits[key] | face | own | {"image_prompt": key in image_prompts})
    return sorted(samples, key=lambda row: row["key"])


def teacher_verdict(row: Row, settings: DatasetSettings) -> str:
    """Return the gate that stops a taught sample, or "". It is judged here because it needs the teacher's scores.

    Test samples pass, as they pass the gates of `select`.
    """
    if row["split"] == "test":
        return ""
    if settings.max_teacher_lpips is not None and row["score_teacher_lpips"] > settings.max_teacher_lpips:
        return "max_teacher_lpips"
    if settings.min_view_identity is not None and row["score_view_identity"] < settings.min_view_identity:
        return "min_view_identity"
    return ""


def list_rejected(inputs: dict[str, list[Input]], gated: dict[str, str]) -> list[Row]:
    """Return a row of `REJECTED_SCHEMA` for everything lost between the raw portraits and the snapshot.

    gated: the gate of `teacher_verdict` that stopped a sample, by key; "" where none did.
    """
    lost: list[Row] = []
    for stage in ("portraits", "align"):
        rows = [row for made in inputs[stage] for row in _read(made, f"{stage}.parquet") if row["status"] != "ok"]
        lost += [
            {"id": row["portrait_id"] or row["name"], "stage": stage, "split": row["split"], "reason": row["reason"]}
            for row in rows
        ]
    portraits = {
        row["portrait_id"]: f"{stored_at(aligned)}/aligned/{row['portrait_id']}.png"
        for aligned in inputs["align"]
        for row in _read(aligned, "align.parquet")
    }
    scores = _rows_by(inputs["score"], "score.parquet", "key")
    reasons = {
        ("select", row["key"]): row["reason"]
        for row in _rows_by(inputs["select"], "select.parquet", "key").values()
        if not row["kept"]
    } | {
        ("teach", row["key"]): row["reason"]
        for row in _rows_by(inputs["teach"], "teach.parquet", "key").values()
        if row["status"] != "ok"
    }
    reasons |= {("dataset", key): reason for key, reason in gated.items() if reason}
    edits = {row["key"]: (row, made) for made in inputs["edit"] for row in _read(made, "edit.parquet")}
    for (stage, key), reason in sorted(reasons.items()):
        row, made = edits[key]
        picture = f"{stored_at(made)}/pseudo_labels/{key}.png" if scores[key]["decodes"] else None
        where = {"id": key, "style": row["style"], "split": row["split"], "stage": stage}
        shown = {"picture": picture, "portrait": portraits[row["portrait_id"]]}
        lost.append(scores[key] | where | shown | {"reason": row["reason"] or reason})
    return lost


def stored_at(made: Input) -> str:
    """A partition's folder, relative to the data root."""
    return f"store/{made.partition.key}/{made.folder.name}"


def read_image_prompts(select: Input) -> list[str]:
    """Keys of a style's image prompts, the best first."""
    document = json.loads((select.folder / "image_prompts.json").read_text(encoding="utf-8"))
    keys: list[str] = document["image_prompts"]
    return keys


def read_funnel(select: Input, rows: list[Row]) -> Row:
    """Return a style's funnel, with the numbers of its taught samples added."""
    funnel: Row = json.loads((select.folder / "funnel.json").read_text(encoding="utf-8"))["funnel"]
    taught = sum(row["style"] == select.partition.style and row["split"] != "test" for row in rows)
    return funnel | {"steps": [*funnel["steps"], {"step": "taught", "left": taught}]}


def make_manifest(rows: list[Row], work: Work) -> dict[str, Any]:
    """Return the dataset's description and origin. It holds neither date nor path: equal datasets have one digest."""
    styles = sorted({row["style"] for row in rows})
    return {
        "name": work.settings.dataset.name,
        "licence": work.settings.dataset.licence,
        "profile": work.settings.profile,
        "world": work.settings.world,
        "samples": len(rows),
        "portraits": len({row["portrait_id"] for row in rows}),
        "styles": {
            style: {
                split: sum(row["style"] == style and row["split"] == split for row in rows)
                for split in ("train", "val", "test")
            }
            for style in styles
        },
        "funnels": {each.partition.style: read_funnel(each, rows) for each in work.inputs["select"]},
        "partitions": {each.partition.key: each.digest for group in work.inputs.values() for each in group},
        "settings": recipe(work.settings),
        **style_licences(work.settings),
        **portrait_licences(rows),
    }


def portrait_licences(rows: list[Row]) -> dict[str, Any]:
    """Return the number of portraits under each licence; empty where no licence is given."""
    of_portrait = {row["portrait_id"]: row["licence"] or "not given" for row in rows if "licence" in row}
    return {"portrait_licences": dict(Counter(of_portrait.values()))} if of_portrait else {}


def _any_has(rows: list[Row], column: str) -> bool:
    return any(column in row for row in rows)


def _read(made: Input, name: str) -> list[Row]:
    rows: list[Row] = pq.read_table(made.folder / name).to_pylist()
    return rows


def _rows_by(inputs: list[Input], name: str, column: str) -> dict[str, Row]:
    return {row[column]: row for made in inputs for row in _read(made, name)}
