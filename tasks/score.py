"""Stage score: scores of each pseudo-label, measured once and judged later (see `select`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_catalog.config.settings import PROCEDURAL, ScoreSettings, Settings
from data_catalog.samples.images import Decoded, Rejected, read_image
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.sources.photographs import DETECTOR, detector_name, looks_for_faces
from tasks.tables.edits import EDITS
from tasks.tables.faces import FACES, landmarks_of
from tasks.tables.scores import MEASURES, PHOTO_MEASURES, SCORES, Scores

if TYPE_CHECKING:
    from torch import Tensor

    from models.faces.landmarks import LandmarkNet
    from models.faces.photo_faces import PhotoFaces
    from models.faces.photo_judges import PhotoJudges
    from models.faces.pnp import Fit
    from models.faces.recognition import Recogniser
    from models.judges.clip import Clip
    from models.judges.perceptual import Perceptual
    from models.judges.safety import SafetyChecker

UNREADABLE = "pseudo-label: "  # starts the reasons of this stage
PHOTO_JUDGES = ("matting", "face_api")
DECIMALS = 5  # scores of one sample agree this far between batch sizes


@dataclass(frozen=True)
class Judges:
    """Networks of the scores."""

    clip: Clip
    identity: Recogniser
    landmarks: LandmarkNet | PhotoFaces | None  # None: cameras are not found again
    lpips: Perceptual
    safety: SafetyChecker | None = None
    photographs: PhotoJudges | None = None


@dataclass(frozen=True)
class Pair:
    """A pseudo-label beside its portrait, both (H, W, 3) uint8."""

    key: str
    split: str
    portrait: np.ndarray
    pseudo_label: np.ndarray
    camera: np.ndarray  # (25,), of the portrait
    points: np.ndarray | None = None  # (5, 2) in [0, 1]: the portrait's landmarks, where the stage align has any


def run(work: Work) -> Summary:
    """Load the judges and score."""
    from models.zoo import zoo

    world, device = work.settings.world, work.settings.run.device
    loaded = {name: zoo.load(name, world, device) for name in models(work.settings)}
    judges = Judges(
        loaded["clip"],
        zoo.load_recogniser(world, device),
        loaded[detector_name(work.settings)],
        loaded["lpips"],
        loaded.get("safety"),
        _photo_judges(loaded, work.settings),
    )
    return score(work, judges)


def _photo_judges(loaded: dict[str, Any], settings: Settings) -> PhotoJudges | None:
    """The judges of photographs, where there are all of them: MediaPipe's detector is not one."""
    from models.faces.photo_faces import PhotoFaces
    from models.faces.photo_judges import PhotoJudges

    detector = loaded[detector_name(settings)]
    if not isinstance(detector, PhotoFaces) or not set(PHOTO_JUDGES) <= set(loaded):
        return None
    return PhotoJudges(detector, *(loaded[name] for name in PHOTO_JUDGES))


def score(work: Work, judges: Judges) -> Summary:
    """Score every sample of an edit partition, one row each."""
    book = json.loads((work.input("prompts").folder / "prompts.json").read_text(encoding="utf-8"))
    captions = (book["source_caption"], book["target_caption"])
    rows = score_block(judges, work.input("edit").folder, work.input("align").folder, captions, work.settings)
    further = PHOTO_MEASURES if judges.photographs else ()
    SCORES.write(work.folder, rows, further)
    scored = [row for row in rows if row.decodes]
    medians = {name: median_of_known([getattr(row, name) for row in scored]) for name in (*MEASURES, *further)}
    return Summary(
        samples=len(scored),
        # The edit stage has counted the pictures that it could not make.
        rejected=dict(Counter(row.reason for row in rows if row.reason.startswith(UNREADABLE))),
        metrics={name: value for name, value in medians.items() if value is not None},
    )


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    align = settings.align.model_dump(include={"min_confidence", "max_reprojection"})
    return settings.score.model_dump(exclude={"batch_size"}) | {"align": align, "world": settings.world}


def models(settings: Settings) -> tuple[str, ...]:
    """Return the judges. The procedural world has no pictures for a safety checker."""
    judges = ["clip", "identity", "landmarks", "lpips"]
    if settings.world == "paper":
        judges.append("safety")
    elif detector_name(settings) == DETECTOR:
        judges.append(DETECTOR)
    photographs = settings.portraits.source != PROCEDURAL and looks_for_faces(settings)
    return (*judges, *(PHOTO_JUDGES if photographs else ()))


STAGE = Stage(
    name="score",
    version=2,
    split_by=("style", "block", "attempt"),
    needs=(Need("align"), Need("prompts"), Need("edit")),
    reads=reads,
    models=models,
    run=run,
)


def score_block(judges: Judges, edit: Path, align: Path, captions: tuple[str, str], settings: Settings) -> list[Scores]:
    """A row for each row of edit.parquet. A picture that does not decode is a row without scores.

    edit, align: folders of these partitions.  captions: of an unedited portrait and of the style.
    """
    portraits = {row.portrait_id: row for row in FACES.read(align)}
    rows: dict[str, Scores] = {}
    pairs: list[Pair] = []
    for made in EDITS.read(edit):
        key, portrait_id = made.key, made.portrait_id
        rows[key] = Scores(key=key, split=made.split, reason=made.reason)
        if made.status != "ok":
            continue
        pseudo_label = read_image(edit / "pseudo_labels" / f"{key}.png")
        portrait = read_image(align / "aligned" / f"{portrait_id}.png")
        if isinstance(pseudo_label, Rejected):
            rows[key] = replace(rows[key], reason=UNREADABLE + pseudo_label.reason)
            continue
        assert isinstance(portrait, Decoded), f"{portrait_id} was edited and is no picture"
        face = portraits[portrait_id]
        camera, points = np.array(face.camera), landmarks_of(face)
        pairs.append(Pair(key, made.split, portrait.rgb, pseudo_label.rgb, camera, points))
    for start in range(0, len(pairs), settings.score.batch_size):
        batch = pairs[start : start + settings.score.batch_size]
        rows |= {row.key: row for row in score_pairs(judges, batch, captions, settings)}
    return list(rows.values())


def score_pairs(judges: Judges, pairs: list[Pair], captions: tuple[str, str], settings: Settings) -> list[Scores]:
    """The row of each pair."""
    from skimage.metrics import structural_similarity

    portraits = np.stack([pair.portrait for pair in pairs])
    pseudo_labels = np.stack([pair.pseudo_label for pair in pairs])
    before, after = (
        _array(judges.clip.embed_images(portraits)),
        _array(judges.clip.embed_images(pseudo_labels)),
    )
    source, target = _array(judges.clip.embed_texts(captions))
    same_face = compare_faces(judges.identity, pairs)
    lpips = _lpips(judges.lpips, portraits, pseudo_labels)
    unsafe = [None] * len(pairs) if judges.safety is None else judges.safety.unsafe(pseudo_labels)
    drifts = camera_drifts(judges.landmarks, pseudo_labels, [pair.camera for pair in pairs], settings)
    compared = [_compare_photographs(judges.photographs, pair) for pair in pairs]
    return [
        Scores(
            key=pair.key,
            split=pair.split,
            decodes=True,
            score_clip_image=round(float(before[i] @ after[i]), DECIMALS),
            score_clip_text=round(float(after[i] @ target), DECIMALS),
            score_clip_direction=round(cosine(after[i] - before[i], target - source), DECIMALS),
            score_identity=round(float(same_face[i]), DECIMALS),
            score_ssim=round(
                float(structural_similarity(pair.portrait, pair.pseudo_label, channel_axis=2, data_range=255)),
                DECIMALS,
            ),
            score_lpips=round(float(lpips[i]), DECIMALS),
            score_camera_drift_deg=drifts[i],
            score_constant=is_constant(pair.pseudo_label, settings.score),
            score_unsafe=unsafe[i],
            **compared[i],
        )
        for i, pair in enumerate(pairs)
    ]


def _compare_photographs(judges: PhotoJudges | None, pair: Pair) -> dict[str, Any]:
    """The further columns of a pair."""
    if judges is None:
        return {}
    faces, distance, outside = judges.compare(pair.portrait, pair.pseudo_label)
    distance, outside = (None if value is None else round(value, DECIMALS) for value in (distance, outside))
    return {"faces": faces, "face_api_distance": distance, "change_outside": outside}


def compare_faces(identity: Recogniser, pairs: Sequence[Pair]) -> np.ndarray:
    """Return the cosine (B,) of the two faces of each pair.

    Both are cut at the place of the portrait's face: an edit keeps it, and may hide it from a detector.
    """
    portraits, cameras = np.stack([pair.portrait for pair in pairs]), np.stack([pair.camera for pair in pairs])
    found = [None] * len(pairs) if all(pair.points is not None for pair in pairs) else identity.find(portraits, cameras)
    points = np.stack([other if pair.points is None else pair.points for pair, other in zip(pairs, found, strict=True)])
    pseudo_labels = np.stack([pair.pseudo_label for pair in pairs])
    return _array(identity.embed(portraits, points) * identity.embed(pseudo_labels, points)).sum(axis=1)


def camera_drifts(
    detector: LandmarkNet | PhotoFaces | None, pseudo_labels: np.ndarray, cameras: list[np.ndarray], settings: Settings
) -> list[float | None]:
    """Return the degrees between each pseudo-label's camera, found again from its landmarks, and its portrait's.

    pseudo_labels: (B, H, W, 3) uint8.  cameras: labels (25,).  None without a detector, or where no face is found: a
    sketch may hide its landmarks from the detector and still keep the camera, so this is no proof of drift.
    """
    from models.faces import alignment

    if detector is None:
        return [None] * len(cameras)
    drifts: list[float | None] = []
    for fit, camera in zip(_find_cameras(detector, pseudo_labels, settings), cameras, strict=True):
        if fit is None or fit.reprojection > settings.align.max_reprojection:
            drifts.append(None)
            continue
        found, given = (alignment.centred_rotation(label) for label in (fit.label, camera))
        drifts.append(round(alignment.rotation_angle_deg(found, given), 3))
    return drifts


def _find_cameras(detector: LandmarkNet | PhotoFaces, pictures: np.ndarray, settings: Settings) -> list[Fit | None]:
    """The camera of each picture (B, H, W, 3) uint8, in the way that the stage align found the portraits'."""
    from models.faces import pnp
    from models.faces.photo_faces import PhotoFaces

    if isinstance(detector, PhotoFaces):
        return [detector.camera(picture) for picture in pictures]
    face = pnp.canonical_face(settings.world)
    return [
        pnp.fit_camera(points, face) if sure >= settings.align.min_confidence else None
        for points, sure in zip(*detector.detect(pictures), strict=True)
    ]


def is_constant(rgb: np.ndarray, settings: ScoreSettings) -> bool:
    """Whether a picture (H, W, 3) uint8 is of one colour, black frames of a safety checker included."""
    return bool((rgb / 255.0).std(axis=(0, 1)).max() < settings.constant_std)


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Return the cosine of two vectors (D,); 0 where one has no length: an edit without change has no direction."""
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length > 1e-12 else 0.0


def _lpips(metric: Perceptual, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    import torch

    from models.pixels import signed

    device = str(next(metric.parameters()).device)
    with torch.no_grad():
        return _array(metric(signed(first, device), signed(second, device)))


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().double().cpu().numpy()
    return array


def median_of_known(values: list[float | None]) -> float | None:
    """The median of the values that are not None; None if none is."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
