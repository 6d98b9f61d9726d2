"""Table of the stage edit: the samples that were asked for, with their pseudo-labels' digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from data_catalog.samples.tables import Table


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Sample to be made."""

    key: Annotated[str, pa.string()]
    portrait_id: Annotated[str, pa.string()]
    split: Annotated[str, pa.string()]  # of the portrait: train, val or test
    style: Annotated[str, pa.string()]
    prompt: Annotated[str, pa.string()]
    prompt_number: Annotated[int, pa.int32()]
    prompt_split: Annotated[str, pa.string()]  # train or test
    seed: Annotated[int, pa.int64()]
    attempt: Annotated[int, pa.int32()] = 0


@dataclass(frozen=True, kw_only=True)
class Edited(Edit):
    """Row of edit.parquet: a sample that was made, or why not."""

    pseudo_label_digest: Annotated[str | None, pa.string()] = None  # sha256 of the PNG; null where there is none
    status: Annotated[str, pa.string()] = "rejected"  # or ok
    reason: Annotated[str, pa.string()] = ""
    # Further columns, where edits came with their portraits; empty for those of the editor.
    edit_file: Annotated[str | None, pa.string()] = None  # its name below portraits.source
    edit_sha256: Annotated[str | None, pa.string()] = None  # of that file


GIVEN = ("edit_file", "edit_sha256")
EDITS = Table("edit.parquet", Edited, further=GIVEN)
