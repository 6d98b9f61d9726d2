"""Two students side by side: the pictures of two evaluations, cut apart and paired by sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from data_catalog.samples.encoding import decode_rgb
from tasks.evaluate import TABLE
from tasks.evaluation.table import STUDENT
from tasks.pictures.inline import embed_animation, embed_picture, make_strip
from tasks.pictures.sheets import FRAME_MS, GAP_PX

SIDES = ("A", "B")
OWN = {STUDENT: STUDENT, "student left": "left", "student right": "right"}  # columns that a student changes

Row = dict[str, Any]
Cells = dict[str, np.ndarray]


def compare_evaluations(a: Path, b: Path) -> list[Row]:
    """By style: strips of the samples that both evaluations drew, and one turntable of both students.

    a, b: folders of the stage evaluate. Where no sample is the same (another test split), each side keeps its portrait.
    """
    drawn = [json.loads((folder / TABLE).read_text(encoding="utf-8"))["pictures"] for folder in (a, b)]
    return [
        {"style": style, **_compare_style([(folder, of[style]) for folder, of in zip((a, b), drawn, strict=True)])}
        for style in sorted(drawn[0].keys() & drawn[1].keys())
    ]


def _compare_style(sides: list[tuple[Path, Row]]) -> Row:
    rows = [cut_sheet(folder / shown["comparison"], shown) for folder, shown in sides]
    shared = [key for key in rows[0] if key in rows[1]]
    strips = [_same_sample(rows[0][key], rows[1][key]) for key in shared]
    prompts = [_prompt(key, sides) for key in shared]
    if not shared:
        strips = [_other_samples(*cells) for cells in zip(rows[0].values(), rows[1].values(), strict=False)]
        prompts = [" | ".join(pair) for pair in zip(*(shown["prompts"] for _, shown in sides), strict=False)]
    columns = list(strips[0]) if strips else []
    # Columns are those that all samples have: a truth may be known of some portraits only.
    columns = [name for name in columns if all(name in strip for strip in strips)]
    # A turntable shows the first sample of its sheet.
    together = sides[0][1]["keys"][0] == sides[1][1]["keys"][0]
    turntables = [folder / shown["turntable"] for folder, shown in sides]
    return {
        "columns": columns,
        "strips": [
            {"prompt": prompt, "picture": embed_picture(make_strip([strip[name] for name in columns]))}
            for prompt, strip in zip(prompts, strips, strict=True)
        ],
        "turntable": turn_together(*turntables) if together else None,
    }


def _prompt(key: str, sides: list[tuple[Path, Row]]) -> str:
    prompts = [shown["prompts"][shown["keys"].index(key)] for _, shown in sides]
    return " | ".join(dict.fromkeys(prompts))


def cut_sheet(path: Path, shown: Row) -> dict[str, Cells]:
    """Cut a comparison sheet into cells, by sample and column. shown: the table's description of it."""
    sheet = decode_rgb(path.read_bytes())
    tall, wide = (
        (s + GAP_PX) // n for s, n in zip(sheet.shape, (len(shown["keys"]), len(shown["columns"])), strict=False)
    )
    return {
        key: {
            column: sheet[row * tall : (row + 1) * tall - GAP_PX, place * wide : (place + 1) * wide - GAP_PX]
            for place, column in enumerate(shown["columns"])
        }
        for row, key in enumerate(shown["keys"])
    }


def _same_sample(a: Cells, b: Cells) -> Cells:
    """Pair a sample: portrait, truth, then both students' edits, view by view."""
    cells = {"portrait": b["portrait"]}
    if "true edit" in b:
        cells["true edit"] = b["true edit"]
    elif np.array_equal(a["pseudo-label"], b["pseudo-label"]):
        cells["pseudo-label"] = b["pseudo-label"]
    else:
        cells |= {f"pseudo-label {side}": of["pseudo-label"] for side, of in zip(SIDES, (a, b), strict=True)}
    for column, name in OWN.items():
        cells |= {f"{name} {side}": of[column] for side, of in zip(SIDES, (a, b), strict=True)}
    return cells


def _other_samples(a: Cells, b: Cells) -> Cells:
    """Show each student with its own portrait."""
    cells: Cells = {}
    for side, of in zip(SIDES, (a, b), strict=True):
        cells |= {f"{column} {side}": of[column] for column in ("portrait", "true edit", *OWN) if column in of}
    return cells


def turn_together(a: Path, b: Path) -> str | None:
    """Join two turntables' students into one animation; None where their frames do not match."""
    frames = [_student_frames(path) for path in (a, b)]
    if len(frames[0]) != len(frames[1]) or frames[0][0].shape != frames[1][0].shape:
        return None
    return embed_animation([np.concatenate(pair, axis=1) for pair in zip(*frames, strict=True)], FRAME_MS)


def _student_frames(path: Path) -> list[np.ndarray]:
    """Read frames (H, W, 3) uint8 of the first method's column, each repeated for its duration."""
    frames = []
    with Image.open(path) as turntable:
        for frame in ImageSequence.Iterator(turntable):
            picture = np.asarray(frame.convert("RGB"))[:, : frame.height]  # cells are square
            # The writer joins equal neighbours to one longer frame.
            frames += [picture] * max(1, round(frame.info.get("duration", FRAME_MS) / FRAME_MS))
    return frames


def pair_files(a: dict[str, Path], b: dict[str, Path]) -> list[Row]:
    """Pictures that two runs logged under the same name, whole and side by side."""
    return [
        {"name": name, "a": _embed(a.get(name)), "b": _embed(b.get(name))}
        for name in [*a, *(name for name in b if name not in a)]
    ]


def _embed(path: Path | None) -> str | None:
    return None if path is None else embed_picture(decode_rgb(path.read_bytes()))
