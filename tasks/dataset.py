"""Stage dataset: a row for each taught sample, and a manifest of its origin.

Card and report are documents beside the snapshot (see `tasks.reports.dataset`); they are in no digest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from data_catalog.config.settings import DatasetSettings, Settings
from data_catalog.config.styles import list_styles, read_style, style_path
from data_catalog.products.snapshot import write_snapshot_files
from data_catalog.samples.tables import Row, Table
from data_catalog.store.stage import Input, Need, Partition, Stage, Summary, Work
from tasks.tables.edits import EDITS, GIVEN, Edit
from tasks.tables.faces import FACES, Face
from tasks.tables.lessons import LESSONS, TEACHER_SCORES
from tasks.tables.portraits import LICENCE, PORTRAITS, Portrait, photograph_id
from tasks.tables.samples import LOST, SAMPLE_ROWS, LostRow, SampleRow
from tasks.tables.scores import MEASURES, PHOTO_MEASURES, SCORE_COLUMNS, SCORES
from tasks.tables.selection import SELECTION
from tasks.teach import SHARD

# Stages of a sample, in their order.
MADE_FROM = ("portraits", "align", "prompts", "edit", "score", "select", "teach")

EDIT_COLUMNS = (*(field.name for field in fields(Edit)), "pseudo_label_digest")


def run(work: Work) -> Summary:
    """Join the stages' rows of each taught sample, and drop samples that the teacher renders badly."""
    taught = join_samples(work.inputs)
    reasons = {row.key: teacher_verdict(row, work.settings.dataset) for row in taught}
    rows = [row for row in taught if not reasons[row.key]]
    lost = list_rejected(work.inputs, reasons)
    write_snapshot_files(
        work.folder, SAMPLE_ROWS.of(rows, known(rows, LICENCE, GIVEN, PHOTO_MEASURES)), make_manifest(rows, work)
    )
    LOST.write(work.folder, lost, known(lost, PHOTO_MEASURES))
    splits = {split: sum(row.split == split for row in rows) for split in ("train", "val", "test")}
    metrics = {f"samples_{split}": float(count) for split, count in splits.items()}
    return Summary(samples=len(rows), metrics=metrics)


def known(rows: Sequence[object], *groups: Sequence[str]) -> list[str]:
    """Return the columns of each group whose first one has a value in some row."""
    return [name for group in groups if any(getattr(row, group[0]) is not None for row in rows) for name in group]


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    return chosen_settings(settings) | style_licences(settings)


def chosen_settings(settings: Settings) -> dict[str, Any]:
    """List the settings that decide on the dataset; values of its style files are not among them."""
    return settings.dataset.model_dump(exclude_none=True) | {"profile": settings.profile, "recipe": recipe(settings)}


STAGE = Stage(
    name="dataset",
    version=3,
    needs=tuple(Need(name) for name in MADE_FROM),
    reads=reads,
    run=run,
    command="build",
)


def recipe(settings: Settings) -> dict[str, Any]:
    """Return the settings that the samples were made with; settings of the execution are left out."""
    return {stage: getattr(settings, stage).model_dump(mode="json", exclude={"batch_size"}) for stage in MADE_FROM}


def style_licences(settings: Settings) -> dict[str, Any]:
    """Return the licence notes of the style files; empty without any."""
    notes = {slug: read_style(style_path(settings, slug)).licence for slug in list_styles(settings)}
    given = {slug: note for slug, note in notes.items() if note}
    return {"style_licences": given} if given else {}


def join_samples(inputs: dict[str, list[Input]]) -> list[SampleRow]:
    """Return one row for each sample that the teacher taught."""
    faces = {row.portrait_id: row for row in _read(FACES, inputs["align"])}
    photographs = {row.portrait_id: row for row in _read(PORTRAITS, inputs["portraits"])}
    edits = {row.key: row for row in _read(EDITS, inputs["edit"])}
    scores = {row.key: row for row in _read(SCORES, inputs["score"])}
    chosen = {row.key: row for row in _read(SELECTION, inputs["select"])}
    samples: list[SampleRow] = []
    for made in inputs["teach"]:
        shard = f"{stored_at(made)}/{SHARD}"
        for row in LESSONS.read(made.folder):
            if row.status != "ok":
                continue
            edit = edits[row.key]
            face, photograph = faces[edit.portrait_id], photographs[photograph_id(edit.portrait_id)]
            assert face.camera is not None, f"{face.portrait_id} was taught without a camera"
            samples.append(
                SampleRow(
                    **_some(edit, (*EDIT_COLUMNS, *GIVEN)),
                    **_some(scores[row.key], (*SCORE_COLUMNS, *PHOTO_MEASURES)),
                    **_some(row, TEACHER_SCORES),
                    **_some(photograph, LICENCE),
                    block=made.partition.block,
                    shard=shard,
                    camera=face.camera,
                    camera_source=face.camera_source,
                    true_camera=face.true_camera,
                    portrait_seed=face.seed,
                    rank=chosen[row.key].rank,
                    # Of several faces in a photograph each is a person of its own.
                    person=photograph.person if edit.portrait_id == photograph.portrait_id else edit.portrait_id,
                )
            )
    return sorted(samples, key=lambda row: row.key)


def teacher_verdict(row: SampleRow, settings: DatasetSettings) -> str:
    """Name the gate that stops a taught sample, or "": the teacher's scores are known only here.

    Test samples pass, as they pass the gates of `select`.
    """
    lpips, identity = row.score_teacher_lpips, row.score_view_identity
    if row.split == "test":
        return ""
    if settings.max_teacher_lpips is not None and lpips is not None and lpips > settings.max_teacher_lpips:
        return "max_teacher_lpips"
    if settings.min_view_identity is not None and identity is not None and identity < settings.min_view_identity:
        return "min_view_identity"
    return ""


def list_rejected(inputs: dict[str, list[Input]], gated: dict[str, str]) -> list[LostRow]:
    """List everything that was lost between the raw portraits and the snapshot, a row each.

    gated: the gate of `teacher_verdict` that stopped a sample, by key; "" where none did.
    """
    taken: list[tuple[str, Portrait | Face]] = [("portraits", row) for row in _read(PORTRAITS, inputs["portraits"])]
    taken += [("align", row) for row in _read(FACES, inputs["align"])]
    lost = [
        LostRow(id=row.portrait_id or row.name, stage=stage, split=row.split, reason=row.reason)
        for stage, row in taken
        if row.status != "ok"
    ]
    portraits = {
        row.portrait_id: f"{stored_at(aligned)}/aligned/{row.portrait_id}.png"
        for aligned in inputs["align"]
        for row in FACES.read(aligned.folder)
    }
    scores = {row.key: row for row in _read(SCORES, inputs["score"])}
    reasons = {("select", row.key): row.reason for row in _read(SELECTION, inputs["select"]) if not row.kept}
    reasons |= {("teach", row.key): row.reason for row in _read(LESSONS, inputs["teach"]) if row.status != "ok"}
    reasons |= {("dataset", key): reason for key, reason in gated.items() if reason}
    edits = {row.key: (row, made) for made in inputs["edit"] for row in EDITS.read(made.folder)}
    for (stage, key), reason in sorted(reasons.items()):
        edit, made = edits[key]
        lost.append(
            LostRow(
                id=key,
                style=edit.style,
                split=edit.split,
                stage=stage,
                reason=edit.reason or reason,
                picture=f"{stored_at(made)}/pseudo_labels/{key}.png" if scores[key].decodes else None,
                portrait=portraits[edit.portrait_id],
                **_some(scores[key], (*MEASURES, *PHOTO_MEASURES)),
            )
        )
    return lost


def stored_at(made: Input) -> str:
    """A partition's folder, relative to the data root."""
    return f"store/{made.partition.key}/{made.folder.name}"


def read_funnel(select: Input, rows: list[SampleRow]) -> dict[str, Any]:
    """Return a style's funnel, with the numbers of its taught samples added."""
    funnel: dict[str, Any] = json.loads((select.folder / "funnel.json").read_text(encoding="utf-8"))["funnel"]
    taught = sum(row.style == select.partition.style and row.split != "test" for row in rows)
    return funnel | {"steps": [*funnel["steps"], {"step": "taught", "left": taught}]}


def make_manifest(rows: list[SampleRow], work: Work) -> dict[str, Any]:
    """Describe the dataset and its origins, without date or place: equal datasets have one digest."""
    styles = sorted({row.style for row in rows})
    return {
        "name": work.settings.dataset.name,
        "licence": work.settings.dataset.licence,
        "profile": work.settings.profile,
        "world": work.settings.world,
        "samples": len(rows),
        "portraits": len({row.portrait_id for row in rows}),
        "styles": {
            style: {
                split: sum(row.style == style and row.split == split for row in rows)
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


def portrait_licences(rows: list[SampleRow]) -> dict[str, Any]:
    """Count the portraits under each licence; empty where none is given."""
    of_portrait = {row.portrait_id: row.licence or "not given" for row in rows if row.licence is not None}
    return {"portrait_licences": dict(Counter(of_portrait.values()))} if of_portrait else {}


def _read(table: Table[Row], inputs: list[Input]) -> list[Row]:
    """The rows of all partitions."""
    return [row for made in inputs for row in table.read(made.folder)]


def _some(row: object, names: Iterable[str]) -> dict[str, Any]:
    """Fields of a row, by name."""
    return {name: getattr(row, name) for name in names}
