"""Table of the stage select: which samples of a style are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from data_catalog.samples.tables import Table


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Row of select.parquet."""

    key: Annotated[str, pa.string()]
    block: Annotated[int | None, pa.int32()]
    attempt: Annotated[int, pa.int32()]
    split: Annotated[str, pa.string()]
    kept: Annotated[bool, pa.bool_()]
    reason: Annotated[str, pa.string()]  # the first gate that stopped the sample
    rank: Annotated[int | None, pa.int32()]  # among the kept of its split, by CLIP direction, 0 the best; null: lost


SELECTION = Table("select.parquet", Selected)
