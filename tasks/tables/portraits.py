"""Table of the stage portraits: the pictures that were taken in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa

from data_catalog.samples.tables import Table

# 25 numbers; not a fixed-size list, which Parquet readers refuse where a value is null.
LABEL = pa.list_(pa.float64())


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """Row of portraits.parquet: a picture that was taken in, or why not."""

    portrait_id: Annotated[str | None, pa.string()]  # "p" and 10 hex digits of sha256; null without pixels of its own
    split: Annotated[str | None, pa.string()] = None  # train, val or test; null where rejected
    source: Annotated[str | None, pa.string()] = None  # procedural, folder or zip
    seed: Annotated[int | None, pa.int64()] = None  # of the procedural world; null elsewhere
    name: Annotated[str, pa.string()]  # path below the source; of a seed, its number
    width: Annotated[int | None, pa.int32()] = None
    height: Annotated[int | None, pa.int32()] = None
    sha256: Annotated[str | None, pa.string()] = None  # of size and pixels
    person: Annotated[str | None, pa.string()] = None  # portrait_id or its mirrored picture's, the smaller one
    camera_true: Annotated[list[float] | None, LABEL] = None  # of the whole picture; null outside the procedural world
    camera_given: Annotated[list[float] | None, LABEL] = None  # from dataset.json; null without
    status: Annotated[str, pa.string()] = "rejected"  # or ok
    reason: Annotated[str, pa.string()] = ""
    # Further columns, where licences are given; empty for a portrait without.
    licence: Annotated[str | None, pa.string()] = None
    licence_url: Annotated[str | None, pa.string()] = None
    author: Annotated[str | None, pa.string()] = None
    source_url: Annotated[str | None, pa.string()] = None


LICENCE = ("licence", "licence_url", "author", "source_url")
PORTRAITS = Table("portraits.parquet", Portrait, further=LICENCE)


def face_id(portrait_id: str, number: int) -> str:
    """Id of one of several portraits that were cut from a photograph."""
    return f"{portrait_id}_{number}"


def photograph_id(portrait_id: str) -> str:
    """Id of the photograph that a portrait was cut from."""
    return portrait_id.partition("_")[0]
