"""Table of the stage score: what each pseudo-label is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from data_catalog.samples.tables import Table


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Row of score.parquet. Without a picture there are no scores."""

    key: Annotated[str, pa.string()]
    split: Annotated[str, pa.string()]
    decodes: Annotated[bool, pa.bool_()] = False
    reason: Annotated[str, pa.string()] = ""  # why there is no picture to score
    score_clip_image: Annotated[float | None, pa.float64()] = None  # cosine of pseudo-label and portrait
    score_clip_text: Annotated[float | None, pa.float64()] = None  # cosine of pseudo-label and the style's caption
    score_clip_direction: Annotated[float | None, pa.float64()] = None  # cosine of the changes of picture and caption
    score_identity: Annotated[float | None, pa.float64()] = None  # cosine of the two faces
    score_ssim: Annotated[float | None, pa.float64()] = None  # 1: the edit changed nothing
    score_lpips: Annotated[float | None, pa.float64()] = None  # 0: the edit changed nothing
    score_camera_drift_deg: Annotated[float | None, pa.float64()] = None  # from the portrait's; null: no face found
    score_constant: Annotated[bool | None, pa.bool_()] = None
    score_unsafe: Annotated[bool | None, pa.bool_()] = None  # null: not checked
    # Further columns, of photographs.
    faces: Annotated[int | None, pa.int32()] = None  # clear faces in the pseudo-label
    face_api_distance: Annotated[float | None, pa.float64()] = None  # not ArcFace's; null: a face is gone
    change_outside: Annotated[float | None, pa.float64()] = None  # in [0, 1], beyond the person; null: all is one


PHOTO_MEASURES = ("faces", "face_api_distance", "change_outside")
SCORES = Table("score.parquet", Scores, further=PHOTO_MEASURES)
SCORE_COLUMNS = tuple(name for name in SCORES.schema.names if name.startswith("score_"))
MEASURES = SCORE_COLUMNS[:-2]  # numbers, not yes or no
