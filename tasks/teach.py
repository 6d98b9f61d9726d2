"""Stage teach: the 3D teacher lifts each kept pseudo-label into triplane, depths and views; a shard a block."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

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
from data_catalog.samples.shard_index import read_index, write_index
from data_catalog.samples.shards import Sample, ShardEntry, read_sample, write_shard
from data_catalog.store.fingerprint import digest_file
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.tables.edits import EDITS, Edited
from tasks.tables.faces import FACES
from tasks.tables.lessons import LESSONS, TEACHER_SCORES, Taught
from tasks.tables.scores import SCORE_COLUMNS, SCORES, Scores
from tasks.tables.selection import SELECTION

if TYPE_CHECKING:
    from models.faces.recognition import Recogniser
    from models.judges.perceptual import Perceptual
    from models.three_d.live3d import Live3D

SHARD = "shard.tar"
STORING = ("stored_view_psnr_db", "stored_depth_error")  # metrics of a partition
NETWORKS = ("teacher", "identity", "landmarks", "lpips")
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
    identity: Recogniser
    lpips: Perceptual


@dataclass(frozen=True)
class Lesson:
    """Teacher's output for one pseudo-label."""

    triplane: np.ndarray  # (C, H, W) float32
    own_view: np.ndarray  # (H, W, 3) uint8, from the portrait's camera
    views: np.ndarray  # (n, H, W, 3) uint8
    view_cameras: np.ndarray  # (n, 25) float32
    depths: np.ndarray  # (n+1, h, w) float32, world units along the ray; the portrait's camera first
    scores: dict[str, float]


def run(work: Work) -> Summary:
    """Load the teacher and teach."""
    return teach(work, load_teachers(work.settings))


def load_teachers(settings: Settings) -> Teachers:
    """Return the networks of a lesson."""
    from models.zoo import zoo

    world, device = settings.world, settings.run.device
    teacher, lpips = (zoo.load(name, world, device) for name in ("teacher", "lpips"))
    return Teachers(teacher, zoo.load_recogniser(world, device), lpips)


def teach(work: Work, teachers: Teachers) -> Summary:
    """Write the shard of the kept samples of one style and block."""
    rows: list[Taught] = []
    errors: dict[str, float] = {}
    hasher = hashlib.sha256()
    entries = write_shard(work.folder / SHARD, teach_block(teachers, kept_samples(work), work, rows, errors), hasher)
    write_index(work.folder, entries)
    LESSONS.write(work.folder, rows)
    taught = [row for row in rows if row.status == "ok"]
    return Summary(
        samples=len(taught),
        rejected=dict(Counter(row.reason for row in rows if row.status != "ok")),
        metrics={name: float(np.mean([getattr(row, name) for row in taught])) for name in TEACHER_SCORES if taught}
        | errors,
        sha256={SHARD: hasher.hexdigest()},
    )


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    return settings.teach.model_dump()


STAGE = Stage(
    name="teach",
    version=3,
    split_by=("style", "block", "attempt"),
    needs=(Need("align"), Need("edit"), Need("score"), Need("select", part=True)),
    reads=reads,
    models=lambda settings: NETWORKS,
    run=run,
)


class Kept(NamedTuple):
    """A selected sample with its scores and its portrait's camera (25,)."""

    edit: Edited
    scores: Scores
    camera: np.ndarray


def kept_samples(work: Work) -> list[Kept]:
    """Selected samples, sorted by key."""
    chosen = SELECTION.read(work.input("select").folder)
    kept = {row.key for row in chosen if row.kept and row.block == work.partition.block}
    portraits = {row.portrait_id: row for row in FACES.read(work.input("align").folder)}
    scores = {row.key: row for row in SCORES.read(work.input("score").folder)}
    rows = sorted((row for row in EDITS.read(work.input("edit").folder) if row.key in kept), key=lambda row: row.key)
    cameras = (np.asarray(portraits[row.portrait_id].camera, dtype=np.float32) for row in rows)
    return [Kept(row, scores[row.key], camera) for row, camera in zip(rows, cameras, strict=True)]


def teach_block(
    teachers: Teachers, samples: list[Kept], work: Work, rows: list[Taught], errors: dict[str, float]
) -> Iterator[Sample]:
    """The shard's samples one by one, so that one triplane is in memory; adds a row for each.

    A triplane that was lifted before from the same picture is taken as it was stored.
    errors: receives the loss from storing the first triplane; the others are stored alike.
    """
    aligned, edited = work.input("align").folder / "aligned", work.input("edit").folder / "pseudo_labels"
    settings, lifted = work.settings.teach, Lifted(work)
    for sample in samples:
        key, portrait_id = sample.edit.key, sample.edit.portrait_id
        pseudo_label = read_image(edited / f"{key}.png")
        if isinstance(pseudo_label, Rejected):
            rows.append(Taught(key=key, reason=f"pseudo-label: {pseudo_label.reason}"))
            continue
        picture = (edited / f"{key}.png").read_bytes()
        # Views are those of the triplane as it is stored, so that they are the same whether it is lifted now or not.
        stored, exact = lifted.find(key, picture), None
        if stored is None:
            exact = lift(teachers.teacher, pseudo_label.rgb)
            stored = encode_triplane(exact, settings)
        triplane = decode_triplane(stored) if stored else exact
        view_cameras = draw_view_cameras(portrait_id, settings)
        lesson = teach_sample(teachers, pseudo_label.rgb, sample.camera, view_cameras, triplane)
        if not (np.isfinite(lesson.triplane).all() and np.isfinite(lesson.depths).all()):
            rows.append(Taught(key=key, reason="triplane is not finite"))
            continue
        lpips, identity = (lesson.scores[name] for name in TEACHER_SCORES)
        rows.append(Taught(key=key, status="ok", score_teacher_lpips=lpips, score_view_identity=identity))
        portrait = (aligned / f"{portrait_id}.png").read_bytes()
        pictures = {"portrait.png": portrait, "pseudo_label.png": picture}
        arrays = {"camera.npy": encode_array(sample.camera)} | encode_views(lesson, settings) | stored
        if not errors and settings.triplane != "none":
            errors |= lifted.errors if exact is None else storing_errors(teachers.teacher, lesson, exact)
        yield Sample(key, pictures | arrays | {"meta.json": encode_json(describe(sample, lesson))})


def draw_view_cameras(portrait_id: str, settings: TeachSettings) -> np.ndarray:
    """Draw labels (n, 25) float32 around the frontal camera.

    They depend on the portrait, not on the style: one person in two styles is seen from the same places.
    """
    import torch

    from models.camera import varied_label

    generator = np.random.default_rng(derive("view cameras", settings.seed, portrait_id))
    around = settings.center_range
    ranges = (settings.yaw_range, settings.pitch_range, settings.fov_range, around, around)
    drawn = [generator.uniform(-each, each, settings.views) for each in ranges]
    labels: np.ndarray = varied_label(*(torch.from_numpy(each).float() for each in drawn)).numpy()
    return labels


class Lifted:
    """Triplanes that the partition stored when other views were wanted, or other samples were kept."""

    def __init__(self, work: Work) -> None:
        wanted, self.errors = work.settings.teach.triplane, dict[str, float]()
        self._places: dict[str, tuple[Path, ShardEntry]] = {}
        for made in work.earlier() if wanted != "none" else ():
            record, shard = made.record, made.folder / SHARD
            is_whole = all(digest_file(made.folder / name) == file.sha256 for name, file in record.files.items())
            if record.fingerprint_inputs["settings"]["triplane"] != wanted or not is_whole:
                continue
            self.errors = self.errors or {name: record.metrics[name] for name in STORING if name in record.metrics}
            for key, entry in read_index(shard).items():
                self._places.setdefault(key, (shard, entry))

    def find(self, key: str, picture: bytes) -> dict[str, bytes] | None:
        """The stored triplane of exactly this picture, a file's bytes; None where it is to be lifted."""
        if key not in self._places:
            return None
        fields = read_sample(*self._places[key])
        if fields["pseudo_label.png"] != picture:
            return None
        return {name: data for name, data in fields.items() if name.startswith("triplane")}


def lift(teacher: Live3D, pseudo_label: np.ndarray) -> np.ndarray:
    """Return the teacher's triplane (C, H, W) float32 of a picture (H, W, 3) uint8."""
    import torch

    from models.pixels import signed

    with torch.no_grad():
        triplane: np.ndarray = teacher.encode(signed(pseudo_label[None], _device(teacher)))[0].float().cpu().numpy()
    return triplane


def _device(teacher: Live3D) -> str:
    return str(next(teacher.parameters()).device)


def teach_sample(
    teachers: Teachers,
    pseudo_label: np.ndarray,
    camera: np.ndarray,
    view_cameras: np.ndarray,
    triplane: np.ndarray | None = None,
) -> Lesson:
    """Render and score views of a pseudo-label.

    pseudo_label: (H, W, 3) uint8.  camera: (25,).  view_cameras: (n, 25).  triplane: (C, H, W) float32; lifted if None.
    """
    import torch

    from models.pixels import signed, to_bytes

    device = _device(teachers.teacher)
    triplane = lift(teachers.teacher, pseudo_label) if triplane is None else triplane
    with torch.no_grad():
        # Render it from the portrait's camera and the views'.
        image, planes = signed(pseudo_label[None], device), torch.from_numpy(triplane)[None].to(device)
        cameras = torch.from_numpy(np.concatenate([camera[None], view_cameras])).to(device)
        render = teachers.teacher.render(planes.expand(len(cameras), -1, -1, -1), cameras)
        # Compare the portrait's own view with the pseudo-label, and the other views' faces with its face.
        size = image.shape[-2:]
        again = torch.nn.functional.interpolate(render.image[:1], size, mode="bilinear", antialias=True)
        lpips = float(teachers.lpips(again.clamp(-1, 1), image))
    pictures = to_bytes(render.image)
    faces = [teachers.identity.embed_seen(pictures[1:], view_cameras)]
    faces.append(teachers.identity.embed_seen(pseudo_label[None], camera[None]))
    same_face = (faces[0] * faces[1]).sum(dim=1)
    return Lesson(
        triplane=triplane,
        own_view=pictures[0],
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
    return encode_views(lesson, settings) | encode_triplane(lesson.triplane, settings)


def encode_views(lesson: Lesson, settings: TeachSettings) -> dict[str, bytes]:
    """Encode a lesson's fields beside its triplane."""
    fields = {
        "view_cameras.npy": encode_array(lesson.view_cameras),
        "depths.npy": encode_array(lesson.depths.astype(np.float32)),
    }
    if settings.view_format == "npy":
        fields |= {"views.npy": encode_array(lesson.views), "own_view.npy": encode_array(lesson.own_view)}
    else:
        fields["own_view.jpg"] = encode_jpeg(lesson.own_view)
        fields |= {f"view_{i:02d}.jpg": encode_jpeg(view) for i, view in enumerate(lesson.views)}
    return fields


def encode_triplane(triplane: np.ndarray, settings: TeachSettings) -> dict[str, bytes]:
    """Encode a triplane (C, H, W); no fields where none is stored."""
    if settings.triplane == "fp16":
        return {"triplane.npy": encode_array(triplane.astype(np.float16))}
    if settings.triplane == "q8":
        codes, tiles = quantise_triplane(triplane)
        return {"triplane_q8.npy": encode_array(codes), "triplane_q8_tiles.npy": encode_array(tiles)}
    return {}


def decode_triplane(fields: dict[str, bytes]) -> np.ndarray:
    """Decode the stored triplane of a lesson's fields, (C, H, W) float32."""
    if "triplane.npy" in fields:
        return decode_array(fields["triplane.npy"]).astype(np.float32)
    return dequantise_triplane(*(decode_array(fields[name]) for name in ("triplane_q8.npy", "triplane_q8_tiles.npy")))


def storing_errors(teacher: Live3D, lesson: Lesson, exact: np.ndarray) -> dict[str, float]:
    """Return the loss in the lesson's views by its triplane, as it is stored, in place of the exact one (C, H, W).

    PSNR of the pictures in dB, and the mean difference of depths in world units.
    """
    import torch

    device = _device(teacher)
    cameras = torch.from_numpy(lesson.view_cameras).to(device)
    with torch.no_grad():
        wanted, again = (
            teacher.render(torch.from_numpy(each)[None].to(device).expand(len(cameras), -1, -1, -1), cameras)
            for each in (exact, lesson.triplane)
        )
        error = (wanted.image.clamp(-1, 1) - again.image.clamp(-1, 1)).square().mean()
        psnr_db = float(10 * torch.log10(4 / error.clamp_min(1e-12)))
        return dict(zip(STORING, (psnr_db, float((wanted.depth - again.depth).abs().mean())), strict=True))


def describe(sample: Kept, lesson: Lesson) -> dict[str, Any]:
    """The contents of meta.json."""
    return {
        **{name: getattr(sample.edit, name) for name in ("key", *SAMPLE_COLUMNS)},
        "scores": {name: getattr(sample.scores, name) for name in SCORE_COLUMNS} | lesson.scores,
        "digests": {"pseudo_label": sample.edit.pseudo_label_digest},
    }
