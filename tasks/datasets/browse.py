"""Look into a dataset: find samples or rejected ones by style, split and score, and show their pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.products.keys import DATASET
from data_catalog.products.snapshot import SAMPLES, Snapshot, snapshot_digest
from data_catalog.samples.encoding import decode_field
from data_catalog.samples.images import Rejected, read_image
from data_catalog.samples.shard_index import read_index
from data_catalog.samples.shards import read_sample
from data_catalog.store.catalog import Catalog
from data_catalog.store.store import Store
from tasks.pictures.inline import embed_picture, make_strip
from tasks.tables.samples import REJECTED
from tasks.tables.scores import MEASURES, PHOTO_MEASURES
from tasks.templates import format_number, render

VIEWS_SHOWN = 4
PICTURES = ("portrait.png", "pseudo_label.png", "views.npy")

Row = dict[str, Any]
read_kept_index = lru_cache(32)(read_index)


@dataclass(frozen=True)
class Wanted:
    """Selection of samples, and their order. None: any. `order` is `key` or a score; bounds are of that score."""

    rejected: bool = False
    style: str | None = None
    split: str | None = None
    reason: str | None = None  # of the rejected
    order: str = "key"
    descending: bool = False
    low: float | None = None
    high: float | None = None

    def filters(self) -> pc.Expression | None:
        """Return the selection as a pyarrow filter."""
        parts = [
            pc.field(name) == value
            for name, value in (("style", self.style), ("split", self.split))
            if value is not None
        ]
        if self.rejected and self.reason is not None:
            parts.append(pc.field("reason") == self.reason)
        if self.order != "key":
            parts += [pc.field(self.order) >= self.low] if self.low is not None else []
            parts += [pc.field(self.order) <= self.high] if self.high is not None else []
        whole = None
        for part in parts:
            whole = part if whole is None else whole & part
        return whole


class Browser:
    """Dataset of a data root, opened for browsing."""

    def __init__(self, root: Path, snapshot: Snapshot) -> None:
        self.root, self.snapshot = root, snapshot
        self.samples = snapshot.folder / SAMPLES
        self.rejected = find_rejected(root, snapshot)

    def styles(self) -> list[str]:
        return sorted(self.snapshot.manifest["styles"])

    def reasons(self) -> list[str]:
        """List the reasons of rejection, each once."""
        if self.rejected is None:
            return []
        reasons: list[str] = pc.unique(pq.read_table(self.rejected, columns=["reason"])["reason"]).to_pylist()
        return sorted(reasons)

    def find(self, wanted: Wanted, start: int, count: int) -> tuple[int, list[Row]]:
        """Return the number of matches, and `count` of them from `start` on."""
        path, key = (self.rejected, "id") if wanted.rejected else (self.samples, "key")
        if path is None:
            return 0, []
        order = key if wanted.order == "key" else wanted.order
        # Only what orders them is read of all; a dataset may have a million samples.
        found = pq.read_table(path, columns=list({key, order}), filters=wanted.filters())
        ordered = found.sort_by([(order, "descending" if wanted.descending else "ascending"), (key, "ascending")])
        keys = ordered[key].slice(start, count).to_pylist()
        rows = pq.read_table(path, filters=pc.field(key).isin(pa.array(keys, pa.string()))).to_pylist() if keys else []
        return len(found), sorted(rows, key=lambda row: keys.index(row[key]))

    def show(self, rows: Iterable[Row], rejected: bool) -> str:
        """The rows as HTML, with their pictures."""
        shown = [self._show_rejected(row) if rejected else self._show_sample(row) for row in rows]
        return render("browse.html.j2", rows=shown)

    def _show_sample(self, row: Row) -> Row:
        """Portrait, pseudo-label, the teacher's views."""
        cells = read_cells(self.root / row["shard"], row["key"])
        names = ["portrait", "pseudo-label", *(f"view {number + 1}" for number in range(len(cells) - 2))]
        return _describe(row, row["key"], cells) | {"names": names[: len(cells)], "prompt": row["prompt"]}

    def _show_rejected(self, row: Row) -> Row:
        """Portrait and pseudo-label where there are any, and the reason."""
        found = {
            name: read_image(self.root / row[column])
            for name, column in (("portrait", "portrait"), ("pseudo-label", "picture"))
            if row[column]
        }
        cells = {name: picture.rgb for name, picture in found.items() if not isinstance(picture, Rejected)}
        own = {"names": list(cells), "reason": row["reason"], "stage": row["stage"]}
        return _describe(row, row["id"], list(cells.values())) | own


def find_rejected(root: Path, snapshot: Snapshot) -> Path | None:
    """Return the table of a dataset's rejected samples; it is stored with the partition of the snapshot."""
    catalog = Catalog(Store(root))
    for entry in catalog.history(DATASET):
        folder = catalog.folder(entry)
        if (folder / REJECTED).is_file() and snapshot_digest(folder) == snapshot.digest:
            return folder / REJECTED
    return None


def read_cells(shard: Path, key: str) -> list[np.ndarray]:
    """Read portrait, pseudo-label and views of a sample, each (H, W, 3) uint8; empty if its shard is deleted."""
    try:
        entry = read_kept_index(shard)[key]
        wanted = [name for name in entry.fields if name in PICTURES or name.startswith("view_0")]
        content = {name: decode_field(name, data) for name, data in read_sample(shard, entry, wanted).items()}
    except (OSError, KeyError, UserError):
        return []
    views = content.get("views.npy", [content[name] for name in sorted(content) if name.startswith("view_0")])
    return [content["portrait.png"], content["pseudo_label.png"], *views[:VIEWS_SHOWN]]


def _describe(row: Row, name: str, cells: list[np.ndarray]) -> Row:
    known = {name: row[name] for name in (*MEASURES, *PHOTO_MEASURES) if row.get(name) is not None}
    scores = {title(name): format_number(value, 2) for name, value in known.items()}
    shown = {"name": name, "style": row["style"], "split": row["split"], "scores": scores}
    return shown | {"strip": embed_picture(make_strip(cells)) if cells else None, "prompt": "", "reason": ""}


def title(column: str) -> str:
    """A score's column as a person reads it: score_clip_text is CLIP text."""
    words = column.removeprefix("score_").replace("_deg", "").split("_")
    return " ".join({"clip": "CLIP", "ssim": "SSIM", "lpips": "LPIPS"}.get(word, word) for word in words)
