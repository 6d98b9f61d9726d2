"""Checks of a stage's output: files, shapes, types and finite numbers, by the sizes of a profile's networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import decode_field, decode_rgb
from tasks.tables.edits import EDITS
from tasks.tables.faces import FACES
from tasks.tables.portraits import PORTRAITS
from tasks.tables.selection import SELECTION

Shape = tuple[int, ...]


@dataclass
class Finding:
    """Description of a partition's folder, and its problems."""

    made: str = ""
    problems: list[str] = field(default_factory=list)

    def expect(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.problems.append(f"{what}: {found} instead of {expected}")


def check_stage(folder: Path, stage: str, settings: Settings) -> Finding:
    """Check the contents of a stage's partition."""
    finding = Finding()
    CHECKS[stage](folder, settings, finding)
    return finding


def _check_portraits(folder: Path, settings: Settings, finding: Finding) -> None:
    rows = PORTRAITS.read(folder)
    finding.expect("portraits that were taken", sum(row.status == "ok" for row in rows), len(rows))
    finding.made = f"{len(rows)} portraits, splits {', '.join(sorted({str(row.split) for row in rows}))}"


def _check_align(folder: Path, settings: Settings, finding: Finding) -> None:
    rows = [row for row in FACES.read(folder) if row.status == "ok"]
    size = (settings.align.size, settings.align.size, 3)
    for row in rows:
        finding.expect("aligned picture", _picture(folder / "aligned" / f"{row.portrait_id}.png"), size)
        finding.expect("camera", len(row.camera or ()), 25)
    kinds = ", ".join(sorted({str(row.camera_source) for row in rows}))
    finding.made = f"{len(rows)} pictures {_by(size[:2])}, cameras {kinds}"


def _check_prompts(folder: Path, settings: Settings, finding: Finding) -> None:
    book = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    counts = len(book["train"]), len(book["test"])
    finding.expect("train and test prompts", counts, (settings.prompts.train, settings.prompts.test))
    finding.made = f"{counts[0]} + {counts[1]} prompts"


def _check_edit(folder: Path, settings: Settings, finding: Finding) -> None:
    rows = EDITS.read(folder)
    size = (settings.align.size, settings.align.size, 3)
    for row in rows:
        if row.status != "ok":
            finding.problems.append(f"{row.key}: {row.reason}")
            continue
        finding.expect("pseudo-label", _picture(folder / "pseudo_labels" / f"{row.key}.png"), size)
    finding.made = f"{len(rows)} pseudo-labels {_by(size[:2])}"


def _check_score(folder: Path, settings: Settings, finding: Finding) -> None:
    table = pq.read_table(folder / "score.parquet")
    names = [name for name in table.column_names if name.startswith("score_")]
    known = [name for name in names if None not in table[name].to_pylist()]
    for name in known:
        finding.expect(name, bool(np.isfinite(table[name].to_numpy()).all()), True)
    absent = [name.removeprefix("score_") for name in names if name not in known]
    finding.made = f"{table.num_rows} samples, {len(known)} scores" + (f", without {', '.join(absent)}" * bool(absent))


def _check_select(folder: Path, settings: Settings, finding: Finding) -> None:
    rows = SELECTION.read(folder)
    kept = sum(row.kept for row in rows)
    finding.expect("samples kept", kept, len(rows))
    finding.made = f"{kept} of {len(rows)} kept"


def _check_teach(folder: Path, settings: Settings, finding: Finding) -> None:
    """The shard is read by webdataset, as other projects read it, and must hold what its index says."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    from data_catalog.samples.shards import entries_from_table

    entries = entries_from_table(pq.read_table(folder / "index.parquet"))
    with (folder / "shard.tar").open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": str(folder), "stream": stream}])))
    finding.expect("keys", [sample["__key__"] for sample in samples], [entry.key for entry in entries])
    expected = taught_fields(settings)
    for sample in samples:
        arrays = {name: data for name, data in sample.items() if not name.startswith(("__", "meta."))}
        values = {name: np.asarray(decode_field(name, data)) for name, data in arrays.items()}
        finding.expect("fields", {n: _typed(v.shape, v.dtype) for n, v in sorted(values.items())}, expected)
        for name, value in values.items():
            finding.expect(f"{name} is finite", bool(np.isfinite(value).all()), True)
    size = (folder / "shard.tar").stat().st_size / max(len(entries), 1)
    planes = next((f"{name} {shape}, " for name, shape in expected.items() if name.startswith("triplane")), "")
    finding.made = f"{len(entries)} samples of {size / 1e6:.1f} MB: {planes}depths {expected['depths.npy']}"


def taught_fields(settings: Settings) -> dict[str, str]:
    """Shape and type of each array of a sample, by the teacher's sizes."""
    from models.three_d import live3d

    teacher = live3d.EMBEDDED if settings.world == "embedded" else live3d.PAPER_LT
    own, renderer = settings.teach, teacher.renderer
    channels, plane = 3 * renderer.plane_channels, _plane_size(teacher)
    side, seen, rays = settings.align.size, renderer.image_size, renderer.resolution
    fields: dict[str, tuple[Shape, Any]] = {
        "portrait.png": ((side, side, 3), np.uint8),
        "pseudo_label.png": ((side, side, 3), np.uint8),
        "camera.npy": ((25,), np.float32),
        "view_cameras.npy": ((own.views, 25), np.float32),
        "depths.npy": ((own.views + 1, rays, rays), np.float32),
    }
    if own.view_format == "npy":
        fields["views.npy"] = ((own.views, seen, seen, 3), np.uint8)
        fields["own_view.npy"] = ((seen, seen, 3), np.uint8)
    else:
        fields["own_view.jpg"] = ((seen, seen, 3), np.uint8)
        fields |= {f"view_{i:02d}.jpg": ((seen, seen, 3), np.uint8) for i in range(own.views)}
    if own.triplane == "fp16":
        fields["triplane.npy"] = ((channels, plane, plane), np.float16)
    elif own.triplane == "q8":
        fields["triplane_q8.npy"] = ((channels, plane, plane), np.uint8)
        fields["triplane_q8_tiles.npy"] = ((2, channels, plane // 32, plane // 32), np.float32)
    return {name: _typed(shape, np.dtype(kind)) for name, (shape, kind) in sorted(fields.items())}


def _plane_size(teacher: Any) -> int:
    """Width of a plane, from the encoder on no memory at all."""
    import torch

    from models.three_d.encoder import Live3DEncoder

    size = teacher.encoder.image_size
    with torch.device("meta"):
        planes = Live3DEncoder(teacher.encoder).eval()(torch.empty(1, 3, size, size))
    assert planes.shape[1] == teacher.encoder.triplane_channels
    return int(planes.shape[-1])


def _check_dataset(folder: Path, settings: Settings, finding: Finding) -> None:
    rows = pq.read_table(folder / "samples.parquet").to_pylist()
    finding.expect("splits", sorted({row["split"] for row in rows}), ["test", "train"])
    finding.made = f"{len(rows)} rows"


def _check_distill(folder: Path, settings: Settings, finding: Finding) -> None:
    """Check the student's keys against the public checkpoint's, less the MAE, which stays a separate network."""
    import torch
    from safetensors import safe_open

    from models.three_d.student import Student, StudentConfig

    config = StudentConfig.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    with torch.device("meta"):
        expected = {key: list(value.shape) for key, value in Student(config).state_dict().items()}
    with safe_open(folder / "student.safetensors", "pt") as file:
        found = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 - not a mapping
    wrong = [key for key in {*expected, *found} if expected.get(key) != found.get(key)]
    finding.expect("weights of the student that differ", sorted(wrong)[:3], [])
    curve = pq.read_table(folder / "curve.parquet").to_pylist()
    finding.expect("points of the curve", len(curve), settings.distill.iterations)
    losses = [row["loss"] for row in curve]
    finding.expect("losses are finite", bool(np.isfinite(losses).all()), True)
    size = (folder / "student.safetensors").stat().st_size
    finding.made = f"student of {len(found)} tensors, {size / 1e6:.0f} MB; loss {losses[0]:.3g} to {losses[-1]:.3g}"


def _check_evaluate(folder: Path, settings: Settings, finding: Finding) -> None:
    document = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    for row in document["table"]:
        for name in ("id", "clip", "three_d", "lpips", "seconds_per_image"):
            finding.expect(f"{row['method']}, {name}", isinstance(row[name], float) and np.isfinite(row[name]), True)
    seconds = {row["method"]: f"{row['seconds_per_image']:.1f} s" for row in document["table"]}
    finding.made = f"table of {len(document['table'])} methods; a picture takes " + ", ".join(
        f"{method} {value}" for method, value in seconds.items()
    )


CHECKS: dict[str, Callable[[Path, Settings, Finding], None]] = {
    "portraits": _check_portraits,
    "align": _check_align,
    "prompts": _check_prompts,
    "edit": _check_edit,
    "score": _check_score,
    "select": _check_select,
    "teach": _check_teach,
    "dataset": _check_dataset,
    "distill": _check_distill,
    "evaluate": _check_evaluate,
}


def _picture(path: Path) -> Shape:
    shape: Shape = decode_rgb(path.read_bytes()).shape
    return shape


def _typed(shape: Shape, kind: Any) -> str:
    return f"{_by(shape)} {kind}"


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))
