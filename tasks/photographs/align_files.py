"""`stillroom align`: photographs to a zip of aligned portraits with cameras, in EG3D's layout.

Each photograph's results lie in a folder beside the zip until all are there, its record written last; so a run that was
interrupted goes on where it ended, and gives the same bytes.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_json, encode_png
from data_catalog.samples.images import Rejected, read_image
from data_catalog.store.fingerprint import digest_json, write_atomically
from models.faces.alignment import apply_affine
from models.zoo import zoo
from tasks import align
from tasks.datasets.export import PER_FOLDER, write_member
from tasks.photographs.drawing import draw_photograph, draw_portrait
from tasks.pictures.inline import data_uri, encode_webp
from tasks.processes import end_with_parent
from tasks.progress import Bar
from tasks.sources.files import LABELS
from tasks.student.edit_files import find_images
from tasks.templates import render

PNG_LEVEL = 3
VERSION = 1  # of the records in the folder beside the zip

Row = dict[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Photograph to align: its number among all, and the folder of the results."""

    number: int
    path: Path
    parts: Path
    settings: Settings

    @property
    def record(self) -> Path:
        return self.parts / f"{self.number:06}.json"

    @property
    def drawing(self) -> str:
        return f"{self.number:06}-photograph.webp"

    def made_of(self) -> str:
        """Digest of all that decides on the results: the file, the settings and the networks."""
        status = self.path.stat()
        own = {"align": self.settings.align.model_dump(), "max_pixels": self.settings.portraits.max_pixels}
        file = [str(self.path), status.st_size, status.st_mtime_ns]
        return digest_json([VERSION, own, file, self.settings.portraits.min_side, zoo.digest("faces", "embedded")])


def align_photographs(given: Sequence[str], out: Path, sheet: Path | None, settings: Settings) -> dict[str, Any]:
    """Align photographs into a zip of EG3D's layout, with a JSON line of each beside it, and a sheet if wanted.

    given: files, folders, patterns.  out: a new .zip.  sheet: an .html.
    """
    if out.suffix != ".zip":
        raise UserError(f"{out} is no .zip", hint="--out portraits.zip")
    if out.exists():
        raise UserError(f"{out} is there already", hint="name another, or remove it")
    started = time.perf_counter()
    parts = out.with_name(f".{out.name}.parts")
    jobs = [Job(number, path, parts, settings) for number, path in enumerate(find_images(given))]
    waiting = [job for job in jobs if _read_record(job) is None]
    if len(waiting) < len(jobs):
        log.info("%d of %d photographs are done already", len(jobs) - len(waiting), len(jobs))
    parts.mkdir(parents=True, exist_ok=True)
    _align_all(waiting, len(jobs))
    rows: list[Row] = [json.loads(job.record.read_text(encoding="utf-8")) for job in jobs]
    told = ({name: value for name, value in row.items() if name != "made_of"} for row in rows)
    lines = out.with_suffix(".jsonl")
    write_atomically(lines, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in told))
    if sheet is not None:
        write_atomically(sheet, _draw_sheet(rows, jobs).encode())
    portraits = sum(len(row["portraits"]) for row in rows)
    if not portraits:
        raise UserError("there is a portrait in none of the photographs", reasons=dict(_reasons(rows)), see=lines)
    _write_zip(out, rows, parts)
    shutil.rmtree(parts)
    seconds = time.perf_counter() - started
    files = [str(path) for path in (out, lines, sheet) if path is not None]
    left_out = dict(_reasons(rows).most_common())
    return {
        "files": files,
        "photographs": len(jobs),
        "portraits": portraits,
        "left_out": left_out,
        "seconds": round(seconds, 1),
        "seconds_each": round(seconds / max(1, len(waiting)), 3),
    }


def align_one(job: Job) -> None:
    """Align the faces of one photograph: crops, a drawing of each, and the record last."""
    made_of = job.made_of()
    row: Row = {"photograph": str(job.path), "width": None, "height": None, "portraits": [], "left_out": []}
    image = read_image(job.path, job.settings.portraits.max_pixels, job.settings.portraits.min_side)
    if isinstance(image, Rejected):
        row["left_out"].append(f"{image.reason}: {image.detail}" if image.detail else image.reason)
    else:
        row |= {"width": image.rgb.shape[1], "height": image.rgb.shape[0]}
        _align_faces(job, image.rgb, row)
    write_atomically(job.record, encode_json({"made_of": made_of, **row}))


def _align_faces(job: Job, rgb: np.ndarray, row: Row) -> None:
    """Fill in the row of a photograph (H, W, 3) uint8, and write its pictures."""
    drawn: list[tuple[np.ndarray, bool]] = []
    try:
        places = align.find_faces(zoo.load("faces", "embedded"), rgb, job.settings)
    except align.Unusable as reason:
        places = [reason]
    for number, place in enumerate(places, start=1):
        name = f"{job.number // PER_FOLDER:05}/{job.number:06}{f'-{number}' if len(places) > 1 else ''}.png"
        try:
            if isinstance(place, align.Unusable):
                raise place
            portrait = align.cut(rgb, place.crop, job.settings.align.size)
        except align.Unusable as reason:
            row["left_out"].append(str(reason))
            if isinstance(place, align.Aligned):
                drawn.append((place.crop, False))
            continue
        drawn.append((place.crop, True))
        row["portraits"].append(_describe(name, place))
        (job.parts / Path(name).name).write_bytes(encode_png(portrait, PNG_LEVEL))
        assert place.portrayed is not None
        points = apply_affine(place.crop, place.portrayed.face.points[:, :2])
        (job.parts / Path(name).with_suffix(".webp").name).write_bytes(
            encode_webp(draw_portrait(portrait, points, place.camera))
        )
    (job.parts / job.drawing).write_bytes(encode_webp(draw_photograph(rgb, drawn)))


def _describe(name: str, place: align.Aligned) -> Row:
    assert place.portrayed is not None
    face, pose, blur = place.portrayed
    yaw, pitch, roll = (round(angle, 2) for angle in pose.yaw_pitch_roll_deg)
    return {
        "name": name,
        "camera": place.camera.tolist(),
        "crop": place.crop.ravel().tolist(),
        "box": [round(float(value), 2) for value in face.box],
        "landmarks": [[round(float(value), 2) for value in point] for point in face.five],
        "face_px": round(face.size_px, 1),
        "score": round(face.score, 3),
        "yaw_deg": yaw,
        "pitch_deg": pitch,
        "roll_deg": roll,
        "residual": round(pose.residual, 4),
        "blur": round(blur, 3),
    }


def _start() -> None:
    """Begin a process of the pool: one thread each, since there is a process for every core."""
    import cv2

    cv2.setNumThreads(1)
    end_with_parent()


def _align_all(jobs: list[Job], total: int) -> None:
    """Align photographs on all cores, the progress on the screen."""
    cores = min(len(jobs), len(os.sched_getaffinity(0)))
    if not cores:
        return
    bar = Bar(desc="align", unit="photograph", total=total, initial=total - len(jobs))
    with bar, ProcessPoolExecutor(cores, mp_context=get_context("spawn"), initializer=_start) as pool:
        for _ in pool.map(align_one, jobs):
            bar.update()


def _read_record(job: Job) -> Row | None:
    """The record of a photograph that is done; None where there is none, or of another file or other settings."""
    try:
        record: Row = json.loads(job.record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record if record["made_of"] == job.made_of() else None


def _reasons(rows: list[Row]) -> Counter[str]:
    """Count the reasons, each without its numbers."""
    return Counter(reason.partition(":")[0] for row in rows for reason in row["left_out"])


def _write_zip(out: Path, rows: list[Row], parts: Path) -> None:
    """Write the portraits and, last, their cameras; the zip appears when it is whole."""
    made = [portrait for row in rows for portrait in row["portraits"]]
    part = out.with_name(f".{out.name}.part")
    with zipfile.ZipFile(part, "w") as archive:
        for portrait in made:
            write_member(archive, portrait["name"], (parts / Path(portrait["name"]).name).read_bytes())
        labels = [[portrait["name"], portrait["camera"]] for portrait in made]
        write_member(archive, LABELS, encode_json({"labels": labels}))
    part.replace(out)


def _draw_sheet(rows: list[Row], jobs: list[Job]) -> str:
    shown = list(_show(rows, jobs))
    counts = {"photographs": len(rows), "portraits": sum(len(row["portraits"]) for row in rows)}
    return render("contact_sheet.html.j2", rows=shown, counts=counts, reasons=_reasons(rows).most_common())


def _show(rows: list[Row], jobs: list[Job]) -> Iterator[Row]:
    def drawing(job: Job, name: str) -> str:
        return data_uri((job.parts / Path(name).with_suffix(".webp").name).read_bytes())

    for row, job in zip(rows, jobs, strict=True):
        portraits = [portrait | {"picture": drawing(job, portrait["name"])} for portrait in row["portraits"]]
        picture = drawing(job, job.drawing) if row["width"] is not None else None
        yield {**row, "file": job.path.name, "picture": picture, "portraits": portraits}
