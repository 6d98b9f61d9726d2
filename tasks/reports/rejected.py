"""Page of rejected samples: up to 50 pictures for each reason, spread over the styles."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from data_catalog.samples.images import Rejected, read_image
from tasks.pictures.inline import embed_picture, make_strip
from tasks.tables.samples import LostRow
from tasks.tables.scores import MEASURES, PHOTO_MEASURES

PER_REASON = 50

Row = dict[str, Any]


def show_reasons(rejected: list[LostRow], root: Path, per_reason: int = PER_REASON) -> list[Row]:
    """Each reason with its count and the pictures of its samples, the most frequent first.

    root: the data root, where the pictures are.
    """
    groups: dict[tuple[str, str], list[LostRow]] = defaultdict(list)
    for row in rejected:
        groups[(row.stage, row.reason)].append(row)
    ordered = sorted(groups.items(), key=lambda each: (-len(each[1]), each[0]))
    return [
        {"stage": stage, "reason": reason, "count": len(rows), "shown": show_some(rows, root, per_reason)}
        for (stage, reason), rows in ordered
    ]


def show_some(rows: list[LostRow], root: Path, most: int) -> list[Row]:
    """Pictures of at most `most` rows, as many of each style as there are."""
    turns: Counter[str | None] = Counter()
    order: list[tuple[int, str, LostRow]] = []
    for row in sorted(rows, key=lambda row: row.id):
        order.append((turns[row.style], row.style or "", row))
        turns[row.style] += 1
    order.sort(key=lambda each: each[:2])
    shown: list[Row] = []
    for _, _, row in order:
        if len(shown) == most:
            break
        picture = show_rejected(row, root)
        shown += [picture] if picture else []
    return shown


def show_rejected(row: LostRow, root: Path) -> Row | None:
    """Portrait and pseudo-label of a rejected sample, if its pictures are still in the store."""
    pictures = [read_image(root / path) for path in (row.portrait, row.picture) if path]
    readable = [picture.rgb for picture in pictures if not isinstance(picture, Rejected)]
    if len(readable) < 2:
        return None
    scores = {name.removeprefix("score_"): getattr(row, name) for name in (*MEASURES, *PHOTO_MEASURES)}
    known = {name: value for name, value in scores.items() if value is not None}
    return vars(row) | {"strip": embed_picture(make_strip(readable)), "scores": known}
