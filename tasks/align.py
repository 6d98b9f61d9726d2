"""Stage align: crop each portrait as FFHQ does and find its camera.

Sources of the camera, the first that applies: a label given with the picture, used as it is; a Deep3DFaceRecon result;
landmarks of a landmark file, and PnP; the face that a detector finds, in a photograph by all its landmarks; else, with
`align.faces: aligned`, the picture counts as aligned and frontal, which the record says. Everything is joined by name
or id, never by order: a missed face must not shift the other cameras.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.samples.encoding import decode_rgb, encode_png
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from models.faces import alignment
from tasks.sources.cameras import check_reconstruction, find_fault
from tasks.sources.cropping import SeveralFaces, Unusable, cut, middle_square
from tasks.sources.files import LANDMARKS
from tasks.sources.landmarks import check_points, find_landmarks, read_landmarks
from tasks.sources.opening import open_source
from tasks.sources.photographs import DETECTOR, Portrayed, choose_faces, detector_name, looks_for_faces, portray
from tasks.sources.reconstructions import CAMERAS, PREFIX, find_reconstructions, read_reconstructions
from tasks.tables.faces import FACES, SEEN, Face
from tasks.tables.portraits import PORTRAITS, Portrait, face_id

if TYPE_CHECKING:
    from models.faces.landmarks import LandmarkNet
    from models.faces.mediapipe_faces import MediaPipeFaces
    from models.faces.photo_faces import PhotoFaces

    Detector = LandmarkNet | MediaPipeFaces | PhotoFaces

log = logging.getLogger(__name__)


class Aligned(NamedTuple):
    """Crop of a picture, and the camera of the crop."""

    crop: np.ndarray  # (2, 3) raw px -> [0, 1]
    camera: np.ndarray  # (25,)
    camera_source: str
    landmarks: np.ndarray | None = None  # (5, 2) raw px
    reprojection: float | None = None
    portrayed: Portrayed | None = None  # of a face that was found in a photograph
    faces: int = 1  # in the picture, of which this is the largest


class Clues(NamedTuple):
    """Given information on the faces in a block. By name: points (5, 2) px or a reason; poses (4, 4) or a reason."""

    landmarks: dict[str, np.ndarray | str] | None = None  # None where no file gives any
    poses: dict[str, np.ndarray | str] | None = None  # None where no reconstructions are given
    detector: Detector | None = None


def run(work: Work) -> Summary:
    """Align the portraits of one block."""
    folder, settings = work.input("portraits").folder, work.settings
    portraits = {str(row.portrait_id): row for row in PORTRAITS.read(folder) if row.status == "ok"}
    clues = _gather(work)
    (work.folder / "aligned").mkdir()
    rows = []
    for portrait_id, portrait in sorted(portraits.items()):
        rgb = decode_rgb((folder / "images" / f"{portrait_id}.png").read_bytes())
        rows += align_portrait(portrait, rgb, clues, settings, work.folder / "aligned")
    FACES.write(work.folder, rows, further=SEEN if any(row.face_px is not None for row in rows) else ())
    good = [row for row in rows if row.status == "ok"]
    reasons = Counter(row.reason.partition(":")[0] for row in rows if row.status != "ok")
    return Summary(samples=len(good), rejected=dict(reasons), metrics=_metrics(good))


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    own = settings.align.model_dump(include={"size", "min_confidence", "max_reprojection"})
    given, rebuilt = find_landmarks(settings), find_reconstructions(settings)
    optional: dict[str, Any] = {} if rebuilt is None else {"reconstructions": True}
    # Names in a file of all pictures, where they are not the pictures' own: other pictures decide on them as well.
    for what, found in (("landmarks_of", given), ("reconstructions_of", rebuilt)):
        if found is not None and found.file is not None:
            names = {name: found.names.get(name) for name in _block(settings, partition)}
            renamed = {name: other for name, other in names.items() if name != other}
            optional |= {what: renamed} if renamed else {}
    if detector_name(settings) == DETECTOR and _detects(settings):
        optional |= settings.align.model_dump(include={"faces", "min_face_px", "max_blur"})
    clues = {"world": settings.world, "landmarks": given is not None, "detects": _detects(settings)}
    return own | clues | optional


def sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    """Return the landmark files (of the settings, or beside the portraits) and the reconstructions."""
    given, rebuilt = find_landmarks(settings), find_reconstructions(settings)
    names = _block(settings, partition)
    files = {} if given is None else given.sources(names, LANDMARKS)
    return files | ({} if rebuilt is None else rebuilt.sources(names, CAMERAS, PREFIX))


def models(settings: Settings) -> tuple[str, ...]:
    return (detector_name(settings),) if _detects(settings) else ()


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


def align_portrait(portrait: Portrait, rgb: np.ndarray, clues: Clues, settings: Settings, folder: Path) -> list[Face]:
    """The rows of one picture, one for each face that is taken; the crops written into `folder`.

    rgb: (H, W, 3) uint8.
    """
    row = Face(portrait_id=str(portrait.portrait_id), split=portrait.split, name=portrait.name, seed=portrait.seed)
    try:
        places = find_cameras(portrait, rgb, clues, settings)
    except Unusable as error:
        return [_reject(row, error)]
    if len(places) == 1:
        return [_align_one(portrait, row, rgb, places[0], settings, folder)]
    return [
        _align_one(portrait, replace(row, portrait_id=face_id(row.portrait_id, number)), rgb, place, settings, folder)
        for number, place in enumerate(places, start=1)
    ]


def _align_one(
    portrait: Portrait, row: Face, rgb: np.ndarray, found: Aligned | Unusable, settings: Settings, folder: Path
) -> Face:
    size = (rgb.shape[1], rgb.shape[0])
    try:
        if isinstance(found, Unusable):
            raise found
        picture = cut(rgb, found.crop, settings.align.size)
    except Unusable as error:
        return _reject(row, error)
    (folder / f"{row.portrait_id}.png").write_bytes(encode_png(picture))
    return _compare(_describe(row, found), portrait.camera_true, found, size)


def _reject(row: Face, error: Unusable) -> Face:
    log.info("%s is rejected: %s", row.name, error)
    return replace(row, status="rejected", reason=str(error))


def find_cameras(portrait: Portrait, rgb: np.ndarray, clues: Clues, settings: Settings) -> Sequence[Aligned | Unusable]:
    """Crop and camera of each portrait in a picture, or why it has none; there are several with `align.faces: all`.

    Raises Unusable where there is no portrait at all.
    """
    given = (portrait.camera_given, clues.poses, clues.landmarks)
    if clues.detector is None or any(each is not None for each in given):
        return [find_camera(portrait, rgb, clues, settings)]
    return find_faces(clues.detector, rgb, settings)


def find_camera(portrait: Portrait, rgb: np.ndarray, clues: Clues, settings: Settings) -> Aligned:
    """Crop and camera by what is given, the first that applies, or the frontal camera."""
    name, size = portrait.name, (rgb.shape[1], rgb.shape[0])
    if portrait.camera_given is not None:
        return use_label(portrait.camera_given, size)
    if clues.poses is not None:
        points = None if clues.landmarks is None else _of(name, clues.landmarks, "landmarks")
        if points is not None:
            check_points(points, size, settings.portraits.min_side)
        return use_reconstruction(_of(name, clues.poses, "reconstruction"), points, size)
    if clues.landmarks is not None:
        given = _of(name, clues.landmarks, "landmarks")
        check_points(given, size, settings.portraits.min_side)
        return fit_portrait(given, settings)
    return assume_frontal(size)


def use_label(label: list[float], size: tuple[int, int]) -> Aligned:
    """Use a given label as it is.  size: (width, height) of the picture; an oblong one is cut to its middle square."""
    fault = find_fault(label)
    if fault:
        raise Unusable(f"bad camera label: {fault}")
    values = np.asarray(label, dtype=np.float64)
    crop = middle_square(size)
    camera = values if size[0] == size[1] else alignment.effective_camera(values, crop, size)
    return Aligned(crop, camera, "given")


def use_reconstruction(pose: np.ndarray, points: np.ndarray | None, size: tuple[int, int]) -> Aligned:
    """The camera of a reconstruction, for the crop that it was made from.

    pose: (4, 4).  points: (5, 2) raw px, of which that crop follows; without, the picture is the crop.
    """
    from models.faces.reconstruction import pose_label

    try:
        check_reconstruction(pose)
        if points is None:
            return Aligned(middle_square(size), pose_label(pose), "reconstruction")
        crop = alignment.crop_transform(points, alignment.EG3D)
        return Aligned(crop, pose_label(pose, crop), "reconstruction", points)
    except ValueError as error:
        raise Unusable(f"unusable reconstruction: {error}") from None


def fit_portrait(points: np.ndarray, settings: Settings) -> Aligned:
    """Crop and camera from landmarks (5, 2), raw px."""
    from models.faces import pnp

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
    from models.faces import pnp

    return Aligned(middle_square(size), pnp.frontal_label(), "assumed_frontal")


def find_face(detector: Detector, rgb: np.ndarray, settings: Settings) -> Aligned:
    """Crop and camera of the one portrait in a picture, the largest face's where several are wanted.

    rgb: (H, W, 3) uint8.  Raises Unusable.
    """
    found = find_faces(detector, rgb, settings)[0]
    if isinstance(found, Unusable):
        raise found
    return found


def find_faces(detector: Detector, rgb: np.ndarray, settings: Settings) -> Sequence[Aligned | Unusable]:
    """Crop and camera of each face in a picture (H, W, 3) uint8 that is asked for, the largest first, or why not.

    Raises Unusable where there is no portrait at all.
    """
    from models.faces.photo_faces import PhotoFaces

    if not isinstance(detector, PhotoFaces):
        return [fit_portrait(detect(detector, rgb, settings), settings)]
    places: list[Aligned | Unusable] = []
    for face in choose_faces(detector.find(rgb), settings.align):
        try:
            made = portray(detector, face, rgb, settings.align)
        except Unusable as error:
            places.append(error)
            continue
        pose = made.pose
        places.append(Aligned(pose.crop, pose.camera, "mesh", face.five, pose.residual, made))
    return places


def detect(detector: Detector, rgb: np.ndarray, settings: Settings) -> np.ndarray:
    """Detect landmarks (5, 2), raw px, of the single face; our own detector runs again in the crop if larger there."""
    find_meshes = getattr(detector, "faces", None)  # MediaPipe's
    if find_meshes is not None:
        from models.faces.landmark_layouts import to_five

        faces = find_meshes(rgb)
        if len(faces) != 1:
            raise SeveralFaces(len(faces)) if faces else Unusable("no face found")
        return to_five(faces[0])
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


def find_detector(settings: Settings) -> Detector | None:
    """Return the detector of these faces; None where pictures count as aligned, or the paper world has none."""
    from models.zoo import zoo

    if not looks_for_faces(settings):
        return None
    detector: Detector | None = zoo.load(detector_name(settings), settings.world, settings.run.device)
    return detector


def _of(name: str, given: dict[str, np.ndarray | str], what: str) -> np.ndarray:
    """Return the entry of a file for a picture. Raises Unusable where there is none."""
    if name not in given:
        raise Unusable(f"no {what} for this picture")
    found = given[name]
    if isinstance(found, str):
        raise Unusable(found)
    return found


def _gather(work: Work) -> Clues:
    """Read all that is given about the pictures of a block, and load the detector where it is needed."""
    settings, names = work.settings, _block(work.settings, work.partition)
    given, rebuilt = find_landmarks(settings), find_reconstructions(settings)
    return Clues(
        None if given is None else read_landmarks(given, names),
        None if rebuilt is None else read_reconstructions(rebuilt, names),
        find_detector(settings) if _detects(settings) and given is None else None,
    )


def _block(settings: Settings, partition: Partition) -> tuple[str, ...]:
    """Names of the pictures of a block; of the procedural world, their seeds, which landmarks may name."""
    own, number = settings.portraits, partition.block or 0
    if own.source == PROCEDURAL:
        first = own.seed + number * own.block_size
        return tuple(str(seed) for seed in range(first, first + own.block_size))
    return open_source(own).block(number, own.block_size)


def _detects(settings: Settings) -> bool:
    """Whether the detector is asked for the faces of the portraits."""
    return looks_for_faces(settings) and settings.align.landmarks is None


def _detect_one(detector: Detector, rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """Points (5, 2) in px of the picture (H, W, 3), and their confidence."""
    points, confidence = detector.detect(rgb[None])
    return points[0].astype(np.float64) * [rgb.shape[1], rgb.shape[0]], float(confidence[0])


def _describe(row: Face, found: Aligned) -> Face:
    """Return the row with the face that was found."""
    if found.portrayed is not None:
        row = _describe_seen(row, found.portrayed)
    return replace(
        row,
        camera=found.camera.tolist(),
        crop=found.crop.ravel().tolist(),
        landmarks=None if found.landmarks is None else found.landmarks.ravel().tolist(),
        camera_source=found.camera_source,
        reprojection=found.reprojection,
    )


def _describe_seen(row: Face, seen: Portrayed) -> Face:
    yaw, pitch, roll = seen.pose.yaw_pitch_roll_deg
    row = replace(row, face_px=seen.face.size_px, face_score=seen.face.score, blur=seen.blur)
    return replace(row, yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll)


def _compare(row: Face, camera_true: list[float] | None, found: Aligned, size: tuple[int, int]) -> Face:
    """The row with the exact camera of the crop, and how far the found one is turned from it."""
    if camera_true is None:
        return row
    true = alignment.effective_camera(camera_true, found.crop, size)
    error = alignment.rotation_angle_deg(alignment.centred_rotation(found.camera), alignment.centred_rotation(true))
    return replace(row, true_camera=true.tolist(), rotation_error_deg=error)


def _metrics(rows: list[Face]) -> dict[str, float]:
    metrics = {f"camera_{kind}": float(n) for kind, n in Counter(row.camera_source for row in rows).items()}
    errors = [row.rotation_error_deg for row in rows if row.rotation_error_deg is not None]
    if errors:
        metrics["rotation_error_deg_median"] = float(np.median(errors))
        metrics["rotation_error_deg_p90"] = float(np.percentile(errors, 90))
    return metrics
