"""A dataset in the layouts of other projects: EG3D's (portraits with cameras) and the public 3DPE's (with edits).

Both have `dataset.json` with {"labels": [[name, 25 floats], ...]}; ours also has splits and licences, which neither
project reads and the stage `portraits` does. Names have no underscore: to 3DPE, one marks an edit.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.products.names import check_target
from data_catalog.products.snapshot import SAMPLES, Snapshot
from data_catalog.samples.encoding import encode_json
from data_catalog.samples.shard_index import read_index
from data_catalog.samples.shards import ShardEntry, read_sample
from data_catalog.workspace import Workspace
from tasks.sources.files import LABELS
from tasks.sources.labels import Licence

LAYOUTS = ("3dpe", "eg3d")
COLUMNS = ["key", "style", "portrait_id", "split", "shard", "camera", "rank"]
LICENCE_COLUMNS = list(Licence._fields)
PORTRAIT, EDIT = "portrait.png", "pseudo_label.png"
PER_FOLDER = 1000  # pictures
Row = dict[str, Any]
Write = Callable[[str, bytes], None]  # name below the target, content


def write_layout(layout: str, snapshot: Snapshot, root: Path, write: Write) -> dict[str, int]:
    """Write the pictures of a dataset one by one, and its dataset.json last; returns the counts.

    root: the data root.  Raises UserError where a shard is gone.
    """
    rows = _read_rows(snapshot)
    best = _best_edits(rows)
    # A thousand to a folder.
    in_order = {portrait_id: f"{place // PER_FOLDER:05}" for place, portrait_id in enumerate(best)}
    places = _by_styles(best) if layout == "3dpe" else in_order
    shards = _Shards(root)
    edits = 0
    for portrait_id, folder in places.items():
        of_style = best[portrait_id]
        first = of_style[min(of_style)]
        write(f"{folder}/{portrait_id}.png", shards.read(first, PORTRAIT))
        for style, row in sorted(of_style.items()) if layout == "3dpe" else ():
            write(f"{folder}_{style}/{portrait_id}.png", shards.read(row, EDIT))
            edits += 1
    write(LABELS, encode_json(_document(best, places)))
    styles = {row["style"] for row in rows}
    left_out = len(rows) - edits if layout == "3dpe" else 0
    counts = {"portraits": len(places)}
    return counts | ({"edits": edits, "styles": len(styles), "left_out": left_out} if layout == "3dpe" else {})


class _Shards:
    """Fields of samples; the index of the shard that was read last is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index: dict[Path, dict[str, ShardEntry]] = {}

    def read(self, row: Row, field: str) -> bytes:
        path = self.root / row["shard"]
        if path not in self.index:
            self.index = {path: read_index(path)}
        entry = self.index[path].get(row["key"])
        if entry is None or field not in entry.fields:
            raise UserError(f"a shard does not hold {row['key']}.{field}", shard=path, hint="stillroom verify")
        return read_sample(path, entry, [field])[field]


def _read_rows(snapshot: Snapshot) -> list[Row]:
    known = pq.read_schema(snapshot.folder / SAMPLES).names
    rows: list[Row] = snapshot.samples([name for name in (*COLUMNS, *LICENCE_COLUMNS) if name in known]).to_pylist()
    if not rows:
        raise UserError("the dataset has no samples", folder=snapshot.folder)
    return rows


def _best_edits(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """{portrait id: {style: its best sample}}: both layouts have one place for a portrait and a style."""
    best: dict[str, dict[str, Row]] = {}
    for row in sorted(rows, key=lambda row: (row["rank"] is None, row["rank"], row["key"])):
        best.setdefault(row["portrait_id"], {}).setdefault(row["style"], row)
    return dict(sorted(best.items()))


def _by_styles(best: dict[str, dict[str, Row]]) -> dict[str, str]:
    """The folder of each portrait, its portraits all with the same styles.

    3DPE's loader takes any style of a folder for any portrait in it: where one were missing, its training would end.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for portrait_id, of_style in best.items():
        groups.setdefault(tuple(sorted(of_style)), []).append(portrait_id)
    places: dict[str, str] = {}
    number = 0
    for _, members in sorted(groups.items()):
        for start in range(0, len(members), PER_FOLDER):
            places |= dict.fromkeys(members[start : start + PER_FOLDER], f"{number:05}")
            number += 1
    return places


def _document(best: dict[str, dict[str, Row]], places: dict[str, str]) -> dict[str, Any]:
    named = {f"{folder}/{portrait_id}.png": portrait_id for portrait_id, folder in places.items()}
    facts = {name: next(iter(best[portrait_id].values())) for name, portrait_id in sorted(named.items())}
    document: dict[str, Any] = {
        "labels": [[name, [float(value) for value in row["camera"]]] for name, row in facts.items()],
        "splits": {name: row["split"] for name, row in facts.items()},
    }
    licences = {
        name: {column: row[column] for column in LICENCE_COLUMNS}
        for name, row in facts.items()
        if any(row.get(column) for column in LICENCE_COLUMNS)
    }
    return document | ({"licences": licences} if licences else {})


def export_dataset(layout: str, target: Path, name: str | None, workspace: Workspace) -> dict[str, Any]:
    """Write a dataset into a new folder, or, where the name ends in .zip, a file; it appears when it is whole.

    layout: 3dpe or eg3d.  name: of the dataset, or its digest; None for the newest that these settings made.
    """
    check_target(target, (".zip",))
    is_zip = target.suffix.lower() == ".zip"
    if target.exists() and (not target.is_dir() or is_zip or any(target.iterdir())):
        raise UserError(f"{target} is there already", hint="name a folder or a .zip that is not there yet")
    from tasks.datasets.diff import find_dataset
    from tasks.datasets.made import snapshot_of

    root = workspace.root
    snapshot = find_dataset(root, name) if name else snapshot_of(workspace)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".part-{target.name}-") as part:
        whole = Path(part) / target.name
        if is_zip:
            with zipfile.ZipFile(whole, "w") as archive:
                counts = write_layout(layout, snapshot, root, lambda name, data: write_member(archive, name, data))
        else:
            counts = write_layout(layout, snapshot, root, lambda name, data: _write_below(whole, name, data))
        if target.exists():
            target.rmdir()
        shutil.move(whole, target)
    return {"path": str(target), "format": layout, "dataset": snapshot.digest, **counts}


def _write_below(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Stored, since pictures are compressed already, and without a date: equal datasets give equal archives."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16  # without it, unpacked files are unreadable
    archive.writestr(member, data)
