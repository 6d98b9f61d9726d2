"""Stage teach: the 3D teacher lifts each kept pseudo-label into triplane, depths and views; a shard a block."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.settings import Settings, TeachSettings
from data_catalog.samples.encoding import (
    decode_array,
    dequantise_triplane,
    encode_array,
    encode_jpeg,
    encode_json,
    quantise_triplane,
)
from data_catalog.samples.images import Rejected, read_image
from data_catalog.samples.seeds import derive
from data_catalog.samples.shard_index import write_index
from data_catalog.samples.shards import Sample, write_shard
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work

if TYPE_CHECKING:
    from models.judges.identity import IdentityNet
    from models.judges.perceptual import Perceptual
    from models.three_d.live3d import Live3D

SHARD = "shard.tar"
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),  # ok or rejected
        ("reason", pa.string()),
        ("score_teacher_lpips", pa.float64()),  # LPIPS of the render from the portrait's camera to the pseudo-label
        ("score_view_identity", pa.float64()),  # mean cosine of the views to the pseudo-label
    ]
)
DECIMALS = 5
SAMPLE_COLUMNS = (
    "style",
    "prompt",
    "prompt_number",
    "prompt_split",
    "portrait_id",
    "split",
    "seed",
    "attempt",
)


@dataclass(frozen=True)
class Teachers:
    """Teacher, and the networks that compare its renderings with the pseudo-label."""

    teacher: Live3D
    identity: IdentityNet
    lpips: Perceptual


@dataclass(frozen=True)
class Lesson:
    """Teacher's output for one pseudo-label."""

    triplane: np.ndarray  # (C, H, W) float32
    views: np.ndarray  # (n, H, W, 3) uint8
    view_cameras: np.ndarray  # (n, 25) float32
    depths: np.ndarray  # (n+1, h, w) float32, world units along the ray; the portrait's camera first
    scores: dict[str, float]


def run(work: Work) -> Summary:
    """Load the teacher and teach."""
    from models.zoo import zoo

    world, device = work.settings.world, work.settings.run.device
    return teach(work, Teachers(*(zoo.load(name, world, device) for name in ("teacher", "identity", "lpips"))))


def teach(work: Work, teachers: Teachers) -> Summary:
    """Write the shard of the kept samples of one style and block."""
    rows: list[dict[str, Any]] = []
    errors: dict[str, float] = {}
    hasher = hashlib.sha256()
    entries = write_shard(work.folder / SHARD, teach_block(teachers, kept_samples(work), work, rows, errors), hasher)
    write_index(work.folder, entries)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), work.folder / "teach.parquet")
    taught = [row for row in rows if row["status"] == "ok"]
    scores = [name for name in SCHEMA.names if name.startswith("score_")]
    return Summary(
        samples=len(taught),
        rejected=dict(Counter(row["reason"] for row in rows if row["status"] != "ok")),
        metrics={name: float(np.mean([row[name] for row in taught])) for name in scores if taught} | errors,
        sha256={SHARD: hasher.hexdigest()},
    )


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    return settings.teach.model_dump()


STAGE = Stage(
    name="teach",
    version=1,
    split_by=("style", "block", "attempt"),
    needs=(Need("align"), Need("edit"), Need("score"), Need("select", part=True)),
    reads=reads,
    models=lambda settings: ("teacher", "identity", "lpips"),
    run=run,
)


def kept_samples(work: Work) -> list[dict[str, Any]]:
    """Return the rows of edit for selected samples, with score and the portrait's camera, sorted by key."""
    chosen = pq.read_table(work.input("select").folder / "select.parquet").to_pylist()
    kept = {row["key"] for row in chosen if row["kept"] and row["block"] == work.partition.block}
    portraits = {
        row["portrait_id"]: row for row in pq.read_table(work.input("align").folder / "align.parquet").to_pylist()
    }
    scores = {
        row["key"]: {name: value for name, value in row.items() if name.startswith("score_")}
        for row in pq.read_table(work.input("score").folder / "score.parquet").to_pylist()
    }
    rows = [row for row in pq.read_table(work.input("edit").folder / "edit.parquet").to_pylist() if row["key"] in kept]
    return [
        row | {"scores": scores[row["key"]], "camera": portraits[row["portrait_id"]]["camera"]}
        for row in sorted(rows, key=lambda row: row["key"])
    ]


def teach_block(
    teachers: Teachers,
    samples: list[dict[str, Any]],
    work: Work,
    rows: list[dict[str, Any]],
    errors: dict[str, float],
) -> Iterator[Sample]:
    """Samples of the shard, one by one, so that one triplane is in memory; adds a row of `SCHEMA` for each.

    errors: receives the loss from storing the first triplane; the others are stored alike.
    """
    aligned, edited = work.input("align").folder / "aligned", work.input("edit").folder / "pseudo_labels"
    settings = work.settings.teach
    for sample in samples:
        key, row = sample["key"], {"key": sample["key"], "status": "rejected", "reason": ""}
        rows.append(row)
        pseudo_label = read_image(edited / f"{key}.png")
        if isinstance(pseudo_label, Rejected):
            row["reason"] = f"pseudo-label: {pseudo_label.reason}"
            continue
        camera = np.asarray(sample["camera"], dtype=np.float32)
        view_cameras = draw_view_cameras(sample["portrait_id"], settings)
        lesson = teach_sample(teachers, pseudo_label.rgb, camera, view_cameras)
        if not (np.isfinite(lesson.triplane).all() and np.isfinite(lesson.depths).all()):
            row["reason"] = "triplane is not finite"
            continue
        row |= {"status": "ok"} | lesson.scores
        portrait = (aligned / f"{sample['portrait_id']}.png").read_bytes()
        pictures = {"portrait.png": portrait, "pseudo_label.png": (edited / f"{key}.png").read_bytes()}
        arrays = {"camera.npy": encode_array(camera)} | encode_lesson(lesson, settings)
        if not errors and settings.triplane != "none":
            errors |= storing_errors(teachers.teacher, lesson, decode_triplane(arrays))
        yield Sample(key, pictures | arrays | {"meta.json": encode_json(describe(sample, lesson))})


def draw_view_cameras(portrait_id: str, settings: TeachSettings) -> np.ndarray:
    """Draw labels (n, 25) float32 around the frontal camera.

    They depend on the portrait, not on the style: one person in two styles is seen from the same places.
    """
    import torch

    from models.camera import orbit_label

    generator = np.random.default_rng(derive("view cameras", settings.seed, portrait_id))
    yaw = generator.uniform(-settings.yaw_range, settings.yaw_range, settings.views)
    pitch = generator.uniform(-settings.pitch_range, settings.pitch_range, settings.views)
    labels: np.ndarray = orbit_label(torch.from_numpy(yaw).float(), torch.from_numpy(pitch).float()).numpy()
    return labels


def teach_sample(teachers: Teachers, pseudo_label: np.ndarray, camera: np.ndarray, view_cameras: np.ndarray) -> Lesson:
    """Lift a pseudo-label to a triplane, and render and score its views.

    pseudo_label: (H, W, 3) uint8.  camera: (25,).  view_cameras: (n, 25).
    """
    import torch

    from models.pixels import signed, to_bytes

    device = str(next(teachers.teacher.parameters()).device)
    with torch.no_grad():
        # Lift the picture, and render it from the portrait's camera and the views'.
        image = signed(pseudo_label[None], device)
        triplane = teachers.teacher.encode(image)
        cameras = torch.from_numpy(np.concatenate([camera[None], view_cameras])).to(device)
        render = teachers.teacher.render(triplane.expand(len(cameras), -1, -1, -1), cameras)
        # Compare the portrait's own view with the pseudo-label, and the other views' faces with its face.
        size = image.shape[-2:]
        again = torch.nn.functional.interpolate(render.image[:1], size, mode="bilinear", antialias=True)
        lpips = float(teachers.lpips(again.clamp(-1, 1), image))
    pictures = to_bytes(render.image)
    same_face = (teachers.identity.embed(pictures[1:]) * teachers.identity.embed(pseudo_label[None])).sum(dim=1)
    return Lesson(
        triplane=triplane[0].float().cpu().numpy(),
        views=pictures[1:],
        view_cameras=view_cameras,
        depths=render.depth[:, 0].float().cpu().numpy(),
        scores={
            "score_teacher_lpips": round(lpips, DECIMALS),
            "score_view_identity": round(float(same_face.mean()), DECIMALS),
        },
    )


def encode_lesson(lesson: Lesson, settings: TeachSettings) -> dict[str, bytes]:
    """Encode the fields of a lesson; every sample of a profile has the same ones."""
    fields = {
        "view_cameras.npy": encode_array(lesson.view_cameras),
        "depths.npy": encode_array(lesson.depths.astype(np.float32)),
    }
    if settings.view_format == "npy":
        fields["views.npy"] = encode_array(lesson.views)
    else:
        fields |= {f"view_{i:02d}.jpg": encode_jpeg(view) for i, view in enumerate(lesson.views)}
    if settings.triplane == "fp16":
        fields["triplane.npy"] = encode_array(lesson.triplane.astype(np.float16))
    elif settings.triplane == "q8":
        codes, tiles = quantise_triplane(lesson.triplane)
        fields |= {"triplane_q8.npy": encode_array(codes), "triplane_q8_tiles.npy": encode_array(tiles)}
    return fields


def decode_triplane(fields: dict[str, bytes]) -> np.ndarray:
    """Decode the stored triplane of a lesson's fields, (C, H, W) float32."""
    if "triplane.npy" in fields:
        return decode_array(fields["triplane.npy"]).astype(np.float32)
    return dequantise_triplane(*(decode_array(fields[name]) for name in ("triplane_q8.npy", "triplane_q8_tiles.npy")))


def storing_errors(teacher: Live3D, lesson: Lesson, stored: np.ndarray) -> dict[str, float]:
    """Return the loss in the lesson's views when its triplane (C, H, W) is replaced by the stored one.

    PSNR of the pictures in dB, and the mean difference of depths in world units.
    """
    import torch

    device = next(teacher.parameters()).device
    cameras = torch.from_numpy(lesson.view_cameras).to(device)
    with torch.no_grad():
        exact, again = (
            teacher.render(torch.from_numpy(each)[None].to(device).expand(len(cameras), -1, -1, -1), cameras)
            for each in (lesson.triplane, stored)
        )
        error = (exact.image.clamp(-1, 1) - again.image.clamp(-1, 1)).square().mean()
        return {
            "stored_view_psnr_db": float(10 * torch.log10(4 / error.clamp_min(1e-12))),
            "stored_depth_error": float((exact.depth - again.depth).abs().mean()),
        }


def describe(sample: dict[str, Any], lesson: Lesson) -> dict[str, Any]:
    """The contents of meta.json."""
    return {
        **{name: sample[name] for name in ("key", *SAMPLE_COLUMNS)},
        "scores": sample["scores"] | lesson.scores,
        "digests": {"pseudo_label": sample["pseudo_label_digest"]},
    }
