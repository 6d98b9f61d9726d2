"""Flicker of an edited video, with frames edited alone and steadied, and the cost of steadying.

`python -m benchmarks.video` edits heads of the embedded world that talk and turn, whose true edit is known for every
frame: each frame alone; then with a smooth camera; then with steadied triplanes too.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.flicker import error, motion, sharpness, tremor, warp_error
from benchmarks.rows import RESULTS, Row, write_results
from models import camera, procedural
from models.faces import alignment
from models.pixels import to_levels
from tasks.student.api import Student
from tasks.video.edit import SIDE_YAW, SMOOTHING, Smoothing, edit_frames, frame_times
from tasks.video.example import Moment, talking_head, write_example
from tasks.video.source import Clip, open_clip
from tasks.video.track import Sighting, smooth_track, track

CASES = {"zombie": (3, "turn him into a zombie"), "bronze-statue": (11, "turn her into a bronze statue")}
VARIANTS = {
    "each frame alone": Smoothing(0.0, 0.0, 0),
    "smooth camera": SMOOTHING._replace(reach=0),
    "and steadied": SMOOTHING,
}
COLUMNS = {
    "warp_error": "warp error",
    "tremor": "tremor",
    "motion": "speech",
    "error": "L1 to truth",
    "sharpness": "sharpness",
    "ms": "ms a frame",
}


@dataclass(frozen=True)
class Case:
    """A clip with its truth. side: the true edits from the side, (64, 64, 3) uint8."""

    clip: Clip
    sightings: list[Sighting]
    moments: list[Moment]
    style: str
    side: list[np.ndarray]


def make_case(style: str, seed: int, frames: int, student: Student, folder: Path) -> Case:
    """Film the head, find its face, render the truth from the side."""
    clip = open_clip(write_example(folder / f"{style}.mp4", seed, frames), 10**7)
    sightings = track(clip, student.companions.landmarks, student.settings, folder / f"{style}.jsonl")
    moments = list(talking_head(seed, frames))
    label = camera.orbit_label(SIDE_YAW, 0.0)[0]
    return Case(clip, sightings, moments, style, [render_truth(moment, label, style) for moment in moments])


def render_truth(moment: Moment, label: torch.Tensor, style: str) -> np.ndarray:
    """(64, 64, 3) uint8."""
    return to_levels(procedural.render(moment.person, label, 64, style).rgb)


def measure(case: Case, student: Student, prompt: str, smoothing: Smoothing, repeats: int) -> dict[str, float]:
    """Every column of one variant; `ms` is CPU time of one thread, the least of some repeats."""
    wish, seconds = student.read_prompt(prompt, None), []
    for _ in range(repeats):
        fresh = Student(student.network, student.companions, student.settings)  # remembers no triplanes
        fresh.encoder = student.encoder
        fresh.warm_up()
        started = time.process_time()
        panes = [shown for _, shown in edit_frames(fresh, case.clip, case.sightings, wish, smoothing=smoothing)]
        seconds.append(time.process_time() - started)
    given, edited, side = zip(*panes, strict=True)
    truth = true_views(case, student, smoothing)
    return {
        "warp_error": warp_error(given, edited),
        "tremor": tremor(side, case.side),
        "motion": motion(side, case.side),
        "error": error(edited, truth),
        "sharpness": sharpness(edited) / sharpness(truth),
        "ms": 1000 * min(seconds) / len(panes),
    }


def true_views(case: Case, student: Student, smoothing: Smoothing) -> list[np.ndarray]:
    """The true edit of each frame, as the crop of this variant sees it."""
    times = frame_times(case.clip, case.sightings)
    poses = smooth_track(case.sightings, times, student.settings, smoothing.points_s, smoothing.crop_s)
    views = []
    for moment, pose in zip(case.moments, poses, strict=True):
        size = (moment.rgb.shape[1], moment.rgb.shape[0])
        label = alignment.effective_camera(moment.label.numpy(), pose.crop, size)
        views.append(render_truth(moment, torch.tensor(label, dtype=torch.float32), case.style))
    return views


def rows_of(means: dict[str, dict[str, float]]) -> list[Row]:
    """Return the flicker and the time, compared with frames that are edited alone."""
    other, *_, whole = means  # from each frame alone to everything that steadies
    alone, ours = means[other], means[whole]
    flicker = Row("video, warp error", "", ours["warp_error"], other, alone["warp_error"],
                  alone["warp_error"] / ours["warp_error"])  # fmt: skip
    return [flicker, Row("video, one frame", "ms", ours["ms"], other, alone["ms"], alone["ms"] / ours["ms"])]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--student", default="latest", help="digest, folder, or latest")
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "video.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    student = Student.load(options.student).speed_up()
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for style, (seed, prompt) in CASES.items():
            case = make_case(style, seed, options.frames, student, Path(folder))
            for name, smoothing in VARIANTS.items():
                rows[name].append(measure(case, student, prompt, smoothing, options.repeats))
    table = Table(box=None, pad_edge=False)
    for header in ("", *COLUMNS.values()):
        table.add_column(header, no_wrap=True)
    means = {name: {column: mean(row[column] for row in found) for column in COLUMNS} for name, found in rows.items()}
    for name, row in means.items():
        table.add_row(name, *[f"{value:.3g}" for value in row.values()])
    Console().print(table)
    by_style = {name: dict(zip(CASES, found, strict=True)) for name, found in rows.items()}
    document = {"threads": 1, "frames": options.frames, "mean": means, "by_style": by_style}
    write_results(options.out, document, rows_of(means))


if __name__ == "__main__":
    main()
