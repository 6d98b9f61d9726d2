"""Edited clip, frame by frame: input | edited | from the side; every frame is kept until the video is complete.

Unfinished work lies in `<data root>/video/<key>`: the tracker's results, and one PNG a frame. The key covers the clip,
the prompt, the student and the chosen panes, so that the same command resumes after a kill.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from data_catalog.config.errors import UserError
from data_catalog.samples.encoding import decode_rgb, encode_png
from data_catalog.store.fingerprint import digest_json, write_atomically
from data_catalog.store.store import Store, writing
from tasks import align
from tasks.pictures.video import Frame, check_sound, check_video_name, write_clip
from tasks.progress import report
from tasks.student.portrait3d import Portrait3D
from tasks.student.user_portrait import Portrait
from tasks.video.flicker import REACH, steady
from tasks.video.source import Clip
from tasks.video.track import CROP_SIGMA_S, POINTS_SIGMA_S, Sighting, smooth_track, split_shots, track

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.student.api import Prompt, Student

FORMAT = 2  # version of unfinished work; raised when a frame's meaning changes
SIDE_YAW = 0.4  # rad, of the novel views
MANY = 200  # frames from which building the fastest form of the student pays
SHOWN = 3  # panes side by side: input, edited, from the right; with `sides` a fourth is made, from the left
SIDE_FILES = {"edited": 1, "right": 2, "left": 3}  # suffix of a video of its own: its pane


class Smoothing(NamedTuple):
    """Widths of the smoothing over time; 0, 0, 0 switches it off."""

    points_s: float = POINTS_SIGMA_S
    crop_s: float = CROP_SIGMA_S
    reach: int = REACH  # frames to each side whose triplanes steady a frame's


SMOOTHING = Smoothing()

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edited:
    """Result of a clip."""

    files: list[Path]
    frames: int
    faces: int  # frames in which a face was found
    detects: bool  # False: there is no face detector, and every frame counts as aligned and frontal
    shots: int
    resumed_at: int  # frames that an earlier, interrupted attempt had made
    seconds: float  # of this attempt, to the frames made in it


class _Seen(NamedTuple):
    """Frame with its own triplane, before its neighbours steady it."""

    number: int
    portrait: Portrait
    triplane: Tensor  # (1, 3*C, h, w)


def edit_clip(student: Student, clip: Clip, prompt: Prompt, out: Path, sides: bool, root: Path) -> Edited:
    """Edit every frame and write `out`, with the sound and the times of the clip.

    sides: also write the edit alone, and from the right and the left, each as a video of its own beside `out`.
    root: the data root.  Raises UserError where a name, the clip or its sound will not do.
    """
    check_outputs(clip, out)
    started = time.perf_counter()
    with _work_folder(root, _key(student, clip, prompt, sides)) as work:
        sightings = track(clip, student.companions.landmarks, student.settings, work / "track.jsonl")
        faces = sum(sighting.points is not None for sighting in sightings)
        if not faces and student.companions.landmarks is not None:
            log.warning("no face was found in %s: every frame is taken as aligned and frontal", clip.path)
        if len(sightings) >= MANY:
            student.speed_up()
        (work / "frames").mkdir(exist_ok=True)
        resumed_at = _count_done(work)
        for number, panes in edit_frames(student, clip, sightings, prompt, sides, resumed_at):
            write_atomically(_frame_file(work, number), encode_png(np.concatenate(panes, axis=1)))
            report(number + 1, len(sightings))
        files = _write_videos(work, clip, sightings, out, sides)
    seconds = time.perf_counter() - started
    detects = student.companions.landmarks is not None
    return Edited(files, len(sightings), faces, detects, len(split_shots(sightings)), resumed_at, seconds)


def check_outputs(clip: Clip, out: Path) -> None:
    """Raise UserError, before any computation, if the result could not be written."""
    check_video_name(out)
    folder = out.absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{out} cannot be written", expected=f"a folder {folder} that may be written to")
    if out.exists() and clip.sound is not None and out.samefile(clip.path):
        raise UserError(f"the edited video would replace its input {out}", hint="another name for --out")
    if clip.sound is not None:
        check_sound(out, clip.sound)


def edit_frames(
    student: Student,
    clip: Clip,
    sightings: Sequence[Sighting],
    prompt: Prompt,
    sides: bool = False,
    first: int = 0,
    smoothing: Smoothing = SMOOTHING,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield number and panes (H, W, 3) uint8 of each frame from `first` on: input, edited, from the right (, the left).

    A frame depends on `reach` neighbours to each side, and on nothing that was made before: wherever one begins, it
    comes out the same.
    """
    reach = smoothing.reach
    seconds = frame_times(clip, sightings)
    poses = smooth_track(sightings, seconds, student.settings, smoothing.points_s, smoothing.crop_s)
    shots = split_shots(sightings)
    shot_of = np.repeat(np.arange(len(shots)), [shot.stop - shot.start for shot in shots])
    window: deque[_Seen] = deque(maxlen=2 * reach + 1)
    due = first
    for number, frame in enumerate(clip.frames()):
        if number >= len(poses):
            break
        if number < first - reach:
            continue
        window.append(_see(student, number, frame, poses[number], prompt, float(seconds[number])))
        while due < len(poses) and (number >= due + reach or number == len(poses) - 1):
            near = [seen for seen in window if abs(seen.number - due) <= reach and shot_of[seen.number] == shot_of[due]]
            yield due, _show(student, near, due, seconds, sides)
            due += 1


def frame_times(clip: Clip, sightings: Sequence[Sighting]) -> np.ndarray:
    """(N,) seconds."""
    return np.array([float(sighting.pts * clip.time_base) for sighting in sightings])


def _see(student: Student, number: int, frame: Frame, pose: align.Aligned, prompt: Prompt, seconds: float) -> _Seen:
    try:
        picture = align.cut(frame.rgb, pose.crop, student.settings.align.size)
    except align.Unusable as reason:
        raise UserError(f"the frame at {seconds:.2f} s cannot be aligned: {reason}") from None
    portrait = Portrait(picture, pose.camera, pose.camera_source, True)
    return _Seen(number, portrait, student.edit_aligned(portrait, prompt).triplane)


def _show(student: Student, near: Sequence[_Seen], due: int, seconds: np.ndarray, sides: bool) -> list[np.ndarray]:
    numbers = [seen.number for seen in near]
    centre = numbers.index(due)
    triplane = steady([seen.triplane for seen in near], seconds[numbers], centre)
    portrait = near[centre].portrait
    head = Portrait3D(student.network, triplane, portrait, 0.0)
    panes = [portrait.rgb, np.asarray(head.own_view()), head.look(SIDE_YAW, 0.0)]
    return [*panes, head.look(-SIDE_YAW, 0.0)] if sides else panes


def _write_videos(work: Path, clip: Clip, sightings: Sequence[Sighting], out: Path, sides: bool) -> list[Path]:
    """The kept frames as videos."""
    wanted = {out: slice(0, SHOWN)}
    if sides:
        wanted |= {out.with_stem(f"{out.stem}-{name}"): slice(pane, pane + 1) for name, pane in SIDE_FILES.items()}
    panes = SHOWN + sides
    for path, shown in wanted.items():
        frames = (
            Frame(_cut_panes(_frame_file(work, number), panes, shown), sighting.pts, sighting.duration)
            for number, sighting in enumerate(sightings)
        )
        write_clip(path, frames, clip.time_base, clip.fps, clip.sound)
    return list(wanted)


def _cut_panes(file: Path, panes: int, shown: slice) -> np.ndarray:
    rgb = decode_rgb(file.read_bytes())
    width = rgb.shape[1] // panes
    return np.ascontiguousarray(rgb[:, shown.start * width : shown.stop * width])


def _key(student: Student, clip: Clip, prompt: Prompt, sides: bool) -> str:
    """Return the name of the frames' folder: a digest of everything they depend on."""
    network = hashlib.sha256()
    for name, value in sorted(student.network.state_dict().items()):
        network.update(name.encode())
        network.update(value.detach().cpu().contiguous().numpy().tobytes())
    intent = {
        "format": FORMAT,
        "clip": clip.digest(),
        "prompt": [prompt.text, hashlib.sha256(prompt.pixels).hexdigest()],
        "student": network.hexdigest(),
        "sides": sides,
        "align": student.settings.align.model_dump(mode="json"),
    }
    return digest_json(intent)[:16]


@contextmanager
def _work_folder(root: Path, key: str) -> Iterator[Path]:
    """Lock the folder of an unfinished video against other processes; it is removed when the work is done."""
    folder, lock_file = root / "video" / key, Store(root).lock_file(f"video/{key}")
    lock = FileLock(lock_file)
    with writing(root):
        for place in (folder, lock_file.parent):
            place.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError("another process is editing this video", folder=folder) from None
        try:
            yield folder
            shutil.rmtree(folder)
        finally:
            lock.release()


def _frame_file(work: Path, number: int) -> Path:
    return work / "frames" / f"{number:06d}.png"


def _count_done(work: Path) -> int:
    """Count the finished frames from the first on; each is renamed into place when it is complete."""
    number = 0
    while _frame_file(work, number).is_file():
        number += 1
    return number
