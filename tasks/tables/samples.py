"""Tables of the stage dataset: the samples of a snapshot, and what was lost on the way to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from data_catalog.products.snapshot import SAMPLES
from data_catalog.samples.tables import Table
from tasks.tables.edits import GIVEN
from tasks.tables.portraits import LICENCE
from tasks.tables.scores import PHOTO_MEASURES


@dataclass(frozen=True, kw_only=True)
class SampleRow:
    """Row of samples.parquet. Scores are those of the tables scores and lessons."""

    key: Annotated[str, pa.string()]
    style: Annotated[str, pa.string()]
    prompt: Annotated[str, pa.string()]
    prompt_number: Annotated[int, pa.int32()]
    prompt_split: Annotated[str, pa.string()]
    portrait_id: Annotated[str, pa.string()]
    split: Annotated[str, pa.string()]
    block: Annotated[int | None, pa.int32()] = None
    shard: Annotated[str, pa.string()]  # path below the data root
    camera: Annotated[list[float], pa.list_(pa.float32(), 25)]
    camera_source: Annotated[str | None, pa.string()] = None
    # Of the aligned picture; null outside the procedural world. Not a fixed-size list, see LABEL.
    true_camera: Annotated[list[float] | None, pa.list_(pa.float64())] = None
    portrait_seed: Annotated[int | None, pa.int64()] = None  # of the procedural world; null elsewhere
    seed: Annotated[int, pa.int64()]
    attempt: Annotated[int, pa.int32()] = 0
    score_clip_image: Annotated[float | None, pa.float64()] = None
    score_clip_text: Annotated[float | None, pa.float64()] = None
    score_clip_direction: Annotated[float | None, pa.float64()] = None
    score_identity: Annotated[float | None, pa.float64()] = None
    score_ssim: Annotated[float | None, pa.float64()] = None
    score_lpips: Annotated[float | None, pa.float64()] = None
    score_camera_drift_deg: Annotated[float | None, pa.float64()] = None
    score_constant: Annotated[bool | None, pa.bool_()] = None
    score_unsafe: Annotated[bool | None, pa.bool_()] = None
    score_teacher_lpips: Annotated[float | None, pa.float64()] = None
    score_view_identity: Annotated[float | None, pa.float64()] = None
    rank: Annotated[int | None, pa.int32()] = None
    person: Annotated[str | None, pa.string()] = None  # mirrored copies of a portrait share it
    pseudo_label_digest: Annotated[str | None, pa.string()] = None
    # Further columns: where licences are given, where edits came with their portraits, and of photographs.
    licence: Annotated[str | None, pa.string()] = None
    licence_url: Annotated[str | None, pa.string()] = None
    author: Annotated[str | None, pa.string()] = None
    source_url: Annotated[str | None, pa.string()] = None
    edit_file: Annotated[str | None, pa.string()] = None
    edit_sha256: Annotated[str | None, pa.string()] = None
    faces: Annotated[int | None, pa.int32()] = None
    face_api_distance: Annotated[float | None, pa.float64()] = None
    change_outside: Annotated[float | None, pa.float64()] = None


@dataclass(frozen=True, kw_only=True)
class LostRow:
    """Row of rejected.parquet."""

    id: Annotated[str, pa.string()]  # a sample's key, or a portrait's id
    style: Annotated[str | None, pa.string()] = None  # null for a portrait
    split: Annotated[str | None, pa.string()] = None
    stage: Annotated[str, pa.string()]
    reason: Annotated[str, pa.string()]
    picture: Annotated[str | None, pa.string()] = None  # path of the pseudo-label below the data root; null without
    portrait: Annotated[str | None, pa.string()] = None  # path of the aligned portrait; null without
    score_clip_image: Annotated[float | None, pa.float64()] = None
    score_clip_text: Annotated[float | None, pa.float64()] = None
    score_clip_direction: Annotated[float | None, pa.float64()] = None
    score_identity: Annotated[float | None, pa.float64()] = None
    score_ssim: Annotated[float | None, pa.float64()] = None
    score_lpips: Annotated[float | None, pa.float64()] = None
    score_camera_drift_deg: Annotated[float | None, pa.float64()] = None
    # Further columns, of photographs.
    faces: Annotated[int | None, pa.int32()] = None
    face_api_distance: Annotated[float | None, pa.float64()] = None
    change_outside: Annotated[float | None, pa.float64()] = None


SAMPLE_ROWS = Table(SAMPLES, SampleRow, further=(*LICENCE, *GIVEN, *PHOTO_MEASURES))
ALL_SCORES = (*(name for name in SAMPLE_ROWS.schema.names if name.startswith("score_")), *PHOTO_MEASURES)
REJECTED = "rejected.parquet"
LOST = Table(REJECTED, LostRow, further=PHOTO_MEASURES)
