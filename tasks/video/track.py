"""Face in each frame of a clip: detected once, smoothed over time, with the camera of each frame.

A detector errs a little in every frame, each time differently, and a trembling crop makes a trembling edit. Smoothing
averages the errors out, along with the face's own tremor. A cut of the film ends a curve and begins another.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_catalog.config.settings import Settings
from models.faces import alignment
from models.faces.landmark_layouts import to_five
from tasks import align
from tasks.pictures.video import Frame
from tasks.progress import report
from tasks.sources.photographs import kind_of_faces
from tasks.video.source import Clip

POINTS_SIGMA_S = 0.06  # of the landmarks that the camera is fitted to
CROP_SIGMA_S = 0.12  # of the crop; the camera fitted in it still follows the head
THUMB_PX, CUT = 16, 0.16  # thumbnail side; mean difference of two thumbnails, of 1, from which there is a cut
LOST_FRAMES = 50  # frames without a face after which any other may be the one
JUMP = 0.5  # share of the crop's side; a face moves less between two frames
END = {"end": True}

log = logging.getLogger(__name__)


class Sighting(NamedTuple):
    """Frame as the tracker sees it.  size: (width, height) px.  points: (5, 2) raw px, None without a face."""

    pts: int
    duration: int
    size: tuple[int, int]
    points: np.ndarray | None
    cut: bool  # the first frame of a shot


def track(clip: Clip, detector: align.Detector | None, settings: Settings, notes: Path) -> list[Sighting]:
    """Detect the face in every frame. Results are noted frame by frame; a second call resumes there."""
    sightings, whole = _read_notes(notes)
    if whole:
        return sightings
    before: np.ndarray | None = None
    with notes.open("a", encoding="utf-8") as file:
        for number, frame in enumerate(clip.frames()):
            thumb = _thumbnail(frame.rgb)
            cut = before is None or bool(np.abs(thumb - before).mean() > CUT)
            before = thumb
            if number < len(sightings):
                continue
            last = None if cut else _last_seen(sightings)
            sightings.append(_sight(frame, detector, settings, cut, last))
            file.write(json.dumps(_row(sightings[-1])) + "\n")
            file.flush()
            report(number)
        file.write(json.dumps(END) + "\n")
    return sightings


def smooth_track(
    sightings: Sequence[Sighting], seconds: np.ndarray, settings: Settings, points_s: float, crop_s: float
) -> list[align.Aligned]:
    """Crop and camera of every frame.  seconds: (N,) when each is shown.  points_s, crop_s: see the constants above."""
    poses: list[align.Aligned] = []
    for shot in split_shots(sightings):
        seen = [sighting.points for sighting in sightings[shot]]
        if all(points is None for points in seen):
            poses += [align.assume_frontal(sighting.size) for sighting in sightings[shot]]
        else:
            sizes = [sighting.size for sighting in sightings[shot]]
            poses += _smooth_shot(seen, sizes, seconds[shot], settings, points_s, crop_s)
    return poses


def split_shots(sightings: Sequence[Sighting]) -> list[slice]:
    """The frames between two cuts of the film, or two leaps of the face."""
    starts = [0]
    last: Sighting | None = None
    for number, sighting in enumerate(sightings):
        if sighting.cut and number:
            starts.append(number)
            last = None
        if sighting.points is None:
            continue
        if last is not None and _leaps(last.points, sighting.points):
            starts.append(number)
        last = sighting
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(sightings)], strict=True)]


def smooth_curve(values: np.ndarray, seconds: np.ndarray, sigma_s: float) -> np.ndarray:
    """Local straight lines, weighted by a Gaussian in time: no lag, true at both ends, at any frame rate.

    values: (N, D).  seconds: (N,), ascending.  Returns (N, D).
    """
    if sigma_s <= 0:
        return values
    smoothed = np.empty_like(values)
    first = np.searchsorted(seconds, seconds - 3 * sigma_s)
    last = np.searchsorted(seconds, seconds + 3 * sigma_s, side="right")
    for i, now in enumerate(seconds):
        near = slice(int(first[i]), int(last[i]))
        offset = seconds[near] - now
        weight = np.exp(-0.5 * (offset / sigma_s) ** 2)
        s0, s1, s2 = weight.sum(), weight @ offset, weight @ offset**2
        spread = s0 * s2 - s1 * s1
        # A single frame has no slope.
        line = weight / s0 if spread <= 1e-9 * s0 * s0 * sigma_s**2 else weight * (s2 - s1 * offset) / spread
        smoothed[i] = line @ values[near]
    return smoothed


def _smooth_shot(
    seen: Sequence[np.ndarray | None],
    sizes: Sequence[tuple[int, int]],
    seconds: np.ndarray,
    settings: Settings,
    points_s: float,
    crop_s: float,
) -> list[align.Aligned]:
    from models.faces import pnp

    face, frame = pnp.canonical_face(kind_of_faces(settings)), alignment.framing(kind_of_faces(settings))
    known = np.array([points is not None for points in seen])
    flat = np.stack([points.ravel() for points in seen if points is not None])
    # Between two sightings a face moves straight; before the first and after the last it stays.
    filled = np.stack([np.interp(seconds, seconds[known], column) for column in flat.T], axis=1)
    points = smooth_curve(filled, seconds, points_s).reshape(-1, 5, 2)
    frames = np.stack([_as_frame(alignment.crop_transform(one, frame)) for one in points])
    frames[:, 1] = np.unwrap(frames[:, 1])
    crops = [_as_crop(row, size) for row, size in zip(smooth_curve(frames, seconds, crop_s), sizes, strict=True)]
    poses = []
    for one, crop in zip(points, crops, strict=True):
        fit = pnp.fit_camera(alignment.apply_affine(crop, one), face)
        poses.append(align.Aligned(crop, fit.label, "pnp", one, fit.reprojection))
    return poses


def _as_frame(crop: np.ndarray) -> np.ndarray:
    """A crop (2, 3) as log side px, angle rad, centre px (2): numbers that may be averaged."""
    inverse = alignment.invert_affine(crop)
    centre = alignment.apply_affine(inverse, [0.5, 0.5])
    side, angle = np.hypot(*inverse[:, 0]), np.arctan2(inverse[1, 0], inverse[0, 0])
    return np.array([np.log(side), angle, *centre])


def _as_crop(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Invert `_as_frame`, (2, 3). A face that leaves the picture moves its crop only up to a limit."""
    side, angle = np.exp(frame[0]), frame[1]
    reach = np.minimum(side / 4, np.array(size) / 2)
    centre = np.clip(frame[2:], reach, np.array(size) - reach)
    axes = side * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corner = centre - axes @ [0.5, 0.5]
    return alignment.invert_affine(np.concatenate([axes, corner[:, None]], axis=1))


def _last_seen(sightings: Sequence[Sighting]) -> np.ndarray | None:
    """Points of the face in the last of the near frames of this shot that show it; None without one."""
    for sighting in reversed(sightings[-LOST_FRAMES:]):
        if sighting.points is not None or sighting.cut:
            return sighting.points
    return None


def _follow(detector: align.Detector, rgb: np.ndarray, settings: Settings, last: np.ndarray | None) -> np.ndarray:
    """Points (5, 2) px of the face at `last`, of the largest one without; raises Unusable where it is lost."""
    find_faces = getattr(detector, "faces", None)
    if find_faces is None:
        return align.detect(detector, rgb, settings)
    faces = [to_five(face) for face in find_faces(rgb)]
    if not faces:
        raise align.Unusable("no face found")
    if last is None:
        return max(faces, key=lambda face: float(np.ptp(face, axis=0).max()))
    nearest = min(faces, key=lambda face: float(np.hypot(*(face - last).mean(axis=0))))
    if len(faces) > 1 and _leaps(last, nearest):
        raise align.Unusable("the face is lost among others")
    return nearest


def _sight(
    frame: Frame, detector: align.Detector | None, settings: Settings, cut: bool, last: np.ndarray | None
) -> Sighting:
    points = None
    if detector is not None:
        try:
            points = _follow(detector, frame.rgb, settings, last)
            alignment.crop_transform(points, alignment.framing(kind_of_faces(settings)))
        except (align.Unusable, ValueError) as reason:
            log.debug("no face at %d: %s", frame.pts, reason)
            points = None
    return Sighting(frame.pts, frame.duration, (frame.rgb.shape[1], frame.rgb.shape[0]), points, cut)


def _leaps(before: np.ndarray | None, after: np.ndarray | None) -> bool:
    assert before is not None
    assert after is not None
    old, new = _as_frame(alignment.crop_transform(before)), _as_frame(alignment.crop_transform(after))
    return bool(np.hypot(*(old - new)[2:]) > JUMP * np.exp(min(old[0], new[0])) or abs(old[0] - new[0]) > JUMP)


def _thumbnail(rgb: np.ndarray) -> np.ndarray:
    """(16, 16, 3) in [0, 1]."""
    from PIL import Image

    small = Image.fromarray(rgb).resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255.0


def _row(sighting: Sighting) -> dict[str, Any]:
    points = None if sighting.points is None else sighting.points.tolist()
    return {**sighting._asdict(), "points": points}


def _read_notes(path: Path) -> tuple[list[Sighting], bool]:
    """Read the results so far, and whether they are complete. A line that a kill cut short is removed from the file."""
    if not path.is_file():
        return [], False
    lines = path.read_bytes().splitlines(keepends=True)
    lines = [line for line in lines if line.endswith(b"\n")]
    rows = [json.loads(line) for line in lines]
    whole = bool(rows) and rows[-1] == END
    with path.open("r+b") as file:
        file.truncate(sum(len(line) for line in lines))
    return [_sighting(row) for row in rows if row != END], whole


def _sighting(row: dict[str, Any]) -> Sighting:
    points = None if row["points"] is None else np.array(row["points"])
    return Sighting(row["pts"], row["duration"], (row["size"][0], row["size"][1]), points, row["cut"])
