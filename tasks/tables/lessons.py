"""Table of the stage teach: which samples the teacher taught, and how truly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from data_catalog.samples.tables import Table


@dataclass(frozen=True, kw_only=True)
class Taught:
    """Row of teach.parquet."""

    key: Annotated[str, pa.string()]
    status: Annotated[str, pa.string()] = "rejected"  # or ok
    reason: Annotated[str, pa.string()] = ""
    score_teacher_lpips: Annotated[float | None, pa.float64()] = None  # of its render from the portrait's camera
    score_view_identity: Annotated[float | None, pa.float64()] = None  # mean cosine of its views to the pseudo-label


LESSONS = Table("teach.parquet", Taught)
TEACHER_SCORES = ("score_teacher_lpips", "score_view_identity")
