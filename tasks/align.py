"""Stage align: crop each portrait as FFHQ does and find its camera.

Where the camera comes from, in this order: a label given with the picture, used as it is; landmarks (a landmark file,
or the detector in the procedural world) and PnP; else the picture is taken as already aligned and frontal, which the
record says. Everything is joined by name or id, never by order: one missed face must not move the others' cameras.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.encoding import decode_rgb, encode_png
from data_catalog.settings import Settings
from data_catalog.stage import Need, Partition, Stage, Summary, Work
from models import alignment
from tasks.landmark_files import find_landmark_files, read_landmarks
from tasks.portrait_sources import PROCEDURAL

if TYPE_CHECKING:
    from models.landmarks import LandmarkNet

log = logging.getLogger(__name__)

# Not fixed-size lists, which Parquet readers refuse where a value is null.
NUMBERS = pa.list_(pa.float64())
SCHEMA = pa.schema(
    [
        ("portrait_id", pa.string()),
        ("split", pa.string()),
        ("name", pa.string()),
        ("camera", NUMBERS),  # of the aligned picture, EG3D's intrinsics unless given
        ("crop", NUMBERS),  # affine 2x3, raw px -> [0, 1] of the crop, row by row
        ("landmarks", NUMBERS),  # raw px, x then y of each; null without
        ("camera_source", pa.string()),  # given, pnp or assumed_frontal
        ("reprojection", pa.float64()),  # of the PnP, root mean square, in crop sides; null without
        ("rotation_error_deg", pa.float64()),  # to true_camera; null where that is unknown
        ("true_camera", NUMBERS),  # the exact camera of the crop, its own intrinsics; null where unknown
        ("seed", pa.int64()),  # of the procedural world; null elsewhere
        ("status", pa.string()),  # ok or rejected
        ("reason", pa.string()),
    ]
)
VISIBLE = 0.5  # part of a crop's area that must lie inside the picture
Row = dict[str, Any]


class Unusable(Exception):
    """A portrait that cannot be aligned; the message is its reason, the part before a colon is counted."""


class Aligned(NamedTuple):
    """Where to cut, and the camera of what is cut out."""

    crop: np.ndarray  # (2, 3) raw px -> [0, 1]
    camera: np.ndarray  # (25,)
    camera_source: str
    landmarks: np.ndarray | None = None  # (5, 2) raw px
    reprojection: float | None = None


def run(work: Work) -> Summary:
    """Align the portraits of one block."""
    folder, settings = work.input("portraits").folder, work.settings
    portraits = [r for r in pq.read_table(folder / "portraits.parquet").to_pylist() if r["status"] == "ok"]
    given = find_landmark_files(settings, work.partition.block or 0)
    landmarks = None if given is None else read_landmarks(work.sources)
    detector = _detector(settings) if _detects(settings) else None
    (work.folder / "aligned").mkdir()
    rows = []
    for portrait in sorted(portraits, key=lambda row: row["portrait_id"]):
        rgb = decode_rgb((folder / "images" / f"{portrait['portrait_id']}.png").read_bytes())
        rows.append(align_portrait(portrait, rgb, landmarks, detector, settings, work.folder / "aligned"))
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), work.folder / "align.parquet")
    good = [row for row in rows if row["status"] == "ok"]
    reasons = Counter(row["reason"].partition(":")[0] for row in rows if row["status"] != "ok")
    return Summary(samples=len(good), rejected=dict(reasons), metrics=_metrics(good))


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    own = settings.align.model_dump(include={"size", "min_confidence", "max_reprojection"})
    given = find_landmark_files(settings, partition.block or 0)
    return own | {"world": settings.world, "landmarks": given is not None, "detects": _detects(settings)}


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    """The landmark file of the settings, or what stands beside the portraits."""
    return find_landmark_files(settings, partition.block or 0) or {}


def models(settings: Settings) -> tuple[str, ...]:
    return ("landmarks",) if _detects(settings) else ()


STAGE = Stage(
    name="align",
    version=1,
    split_by=("block",),
    needs=(Need("portraits"),),
    reads=reads,
    sources=sources,
    models=models,
    run=run,
)


def align_portrait(
    portrait: Row,
    rgb: np.ndarray,
    landmarks: dict[str, np.ndarray | None] | None,
    detector: LandmarkNet | None,
    settings: Settings,
    folder: Path,
) -> Row:
    """The row of one portrait, its crop written into `folder`.

    portrait: row of portraits.parquet.  rgb: (H, W, 3) uint8.  landmarks: by name, None where no file gives any.
    """
    row = {name: portrait[name] for name in ("portrait_id", "split", "name", "seed")}
    size = (rgb.shape[1], rgb.shape[0])
    try:
        if portrait["camera_given"] is not None:
            found = use_label(portrait["camera_given"], size)
        elif landmarks is not None:
            found = fit_portrait(_landmarks_of(portrait["name"], landmarks), settings)
        elif detector is not None:
            found = fit_portrait(detect(detector, rgb, settings), settings)
        else:
            found = assume_frontal(size)
        picture = cut(rgb, found.crop, settings.align.size)
    except Unusable as error:
        log.info("%s is rejected: %s", portrait["name"], error)
        return row | {"status": "rejected", "reason": str(error)}
    (folder / f"{portrait['portrait_id']}.png").write_bytes(encode_png(picture))
    return row | _described(found) | _truth(portrait["camera_true"], found, size)


def use_label(label: list[float], size: tuple[int, int]) -> Aligned:
    """A given label as it is.  size: (width, height) of the picture; of an oblong one, the middle square is taken."""
    values = np.asarray(label, dtype=np.float64)
    rotation = values[:16].reshape(4, 4)[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 0.01 or np.linalg.det(rotation) < 0:
        raise Unusable("bad camera label: its 3x3 part is not a rotation")
    crop = middle_square(size)
    camera = values if size[0] == size[1] else alignment.effective_camera(values, crop, size)
    return Aligned(crop, camera, "given")


def fit_portrait(points: np.ndarray, settings: Settings) -> Aligned:
    """Crop and camera from landmarks (5, 2), raw px."""
    from models import pnp

    try:
        crop = alignment.crop_transform(points, alignment.framing(settings.world))
    except ValueError as error:
        raise Unusable(f"unusable landmarks: {error}") from None
    fit = pnp.fit_camera(alignment.apply_affine(crop, points), pnp.canonical_face(settings.world))
    if fit.reprojection > settings.align.max_reprojection:
        raise Unusable(f"landmarks are not those of a face: {fit.reprojection:.3f} crop sides off")
    return Aligned(crop, fit.label, "pnp", points, fit.reprojection)


def assume_frontal(size: tuple[int, int]) -> Aligned:
    """The middle square of a picture that is taken as aligned.  size: (width, height)."""
    from models import pnp

    return Aligned(middle_square(size), pnp.frontal_label(), "assumed_frontal")


def detect(detector: LandmarkNet, rgb: np.ndarray, settings: Settings) -> np.ndarray:
    """Landmarks (5, 2), raw px, found in the picture and once more in the crop, where the face is larger."""
    points, confidence = _detect_one(detector, rgb)
    if confidence < settings.align.min_confidence:
        raise Unusable(f"no face found: confidence {confidence:.2f}")
    try:
        crop = alignment.crop_transform(points, alignment.framing(settings.world))
    except ValueError as error:
        raise Unusable(f"unusable landmarks: {error}") from None
    inside, confidence = _detect_one(detector, cut(rgb, crop, settings.align.size))
    if confidence < settings.align.min_confidence:
        return points
    side = np.array([settings.align.size, settings.align.size], dtype=np.float64)
    return alignment.apply_affine(alignment.invert_affine(crop), inside / side)


def middle_square(size: tuple[int, int]) -> np.ndarray:
    """(2, 3) raw px -> [0, 1] of the largest square in the middle of a picture.  size: (width, height)."""
    side = min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return np.array([[1 / side, 0.0, -left / side], [0.0, 1 / side, -top / side]])


def cut(rgb: np.ndarray, crop: np.ndarray, size: int) -> np.ndarray:
    """The crop (size, size, 3) uint8 of a picture (H, W, 3) uint8, antialiased; past its rim the rim goes on."""
    from PIL import Image

    inverse = alignment.invert_affine(crop)
    _check_inside(inverse, (rgb.shape[1], rgb.shape[0]))
    side_px = float(np.hypot(*inverse[:, 0]))
    if abs(inverse[1, 0]) < 1e-9 and _holds(inverse, side_px, rgb):
        # Upright and inside: a plain resize, which leaves a picture of the right size as it is.
        left, top = inverse[:, 2]
        box = (left, top, min(left + side_px, rgb.shape[1]), min(top + side_px, rgb.shape[0]))
        return np.array(Image.fromarray(rgb).resize((size, size), Image.Resampling.LANCZOS, box=box))
    margin = int(np.ceil(side_px)) + 2
    corners = alignment.apply_affine(inverse, [[0, 0], [1, 0], [0, 1], [1, 1]])
    low, high = np.floor(corners.min(axis=0)).astype(int) - 2, np.ceil(corners.max(axis=0)).astype(int) + 2
    before = np.clip(-low, 0, margin)
    after = np.clip(high - [rgb.shape[1], rgb.shape[0]], 0, margin)
    padded = np.pad(rgb, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    # Whole-number shrinking first, then twice the pixels and their mean: no pixel of the picture is left out.
    shrink = max(1, int(side_px // size))
    image = Image.fromarray(padded)
    image = image.reduce(shrink) if shrink > 1 else image
    inverse[:, 2] += before
    matrix = inverse / shrink
    matrix[:, :2] /= 2 * size
    wide = image.transform(
        (2 * size, 2 * size), Image.Transform.AFFINE, tuple(matrix.ravel()), Image.Resampling.BICUBIC
    )
    return np.array(wide.reduce(2), dtype=np.uint8)


def _landmarks_of(name: str, landmarks: dict[str, np.ndarray | None]) -> np.ndarray:
    if name not in landmarks:
        raise Unusable("no landmarks for this picture")
    points = landmarks[name]
    if points is None:
        raise Unusable("unusable landmarks: five points in pixels are expected")
    return points


def _detects(settings: Settings) -> bool:
    """The detector knows the faces of the procedural world only."""
    return settings.portraits.source == PROCEDURAL and settings.align.landmarks is None


def _detector(settings: Settings) -> LandmarkNet:
    from models import zoo

    detector: LandmarkNet = zoo.load("landmarks", settings.world, settings.run.device)
    return detector


def _detect_one(detector: LandmarkNet, rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """Points (5, 2) in px of the picture (H, W, 3), and their confidence."""
    points, confidence = detector.detect(rgb[None])
    return points[0].astype(np.float64) * [rgb.shape[1], rgb.shape[0]], float(confidence[0])


def _holds(inverse: np.ndarray, side_px: float, rgb: np.ndarray) -> bool:
    low, high = inverse[:, 2], inverse[:, 2] + side_px
    return bool((low >= 0).all() and (high <= np.array([rgb.shape[1], rgb.shape[0]]) + 1e-6).all())


def _check_inside(inverse: np.ndarray, size: tuple[int, int]) -> None:
    grid = (np.stack(np.meshgrid(np.arange(16), np.arange(16)), axis=-1).reshape(-1, 2) + 0.5) / 16
    raw = alignment.apply_affine(inverse, grid)
    visible = float(((raw >= 0) & (raw <= np.array(size))).all(axis=1).mean())
    if visible < VISIBLE:
        raise Unusable(f"the crop lies outside the picture: {visible:.0%} of it is visible")


def _described(found: Aligned) -> Row:
    return {
        "camera": found.camera.tolist(),
        "crop": found.crop.ravel().tolist(),
        "landmarks": None if found.landmarks is None else found.landmarks.ravel().tolist(),
        "camera_source": found.camera_source,
        "reprojection": found.reprojection,
        "status": "ok",
        "reason": "",
    }


def _truth(camera_true: list[float] | None, found: Aligned, size: tuple[int, int]) -> Row:
    """The exact camera of the crop, and how far the found one is turned from it."""
    if camera_true is None:
        return {"true_camera": None, "rotation_error_deg": None}
    true = alignment.effective_camera(camera_true, found.crop, size)
    error = alignment.rotation_angle_deg(alignment.centred_rotation(found.camera), alignment.centred_rotation(true))
    return {"true_camera": true.tolist(), "rotation_error_deg": error}


def _metrics(rows: list[Row]) -> dict[str, float]:
    metrics = {f"camera_{kind}": float(n) for kind, n in Counter(row["camera_source"] for row in rows).items()}
    errors = [row["rotation_error_deg"] for row in rows if row["rotation_error_deg"] is not None]
    if errors:
        metrics["rotation_error_deg_median"] = float(np.median(errors))
        metrics["rotation_error_deg_p90"] = float(np.percentile(errors, 90))
    return metrics
