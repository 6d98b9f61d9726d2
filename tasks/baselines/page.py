"""Page of Table 1 and the sheet of Figure 4."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_catalog.config.settings import Settings
from tasks.baselines.measuring import IMAGE, PICTURES, TEXT, editor_steps
from tasks.baselines.methods import METHODS, OURS
from tasks.baselines.table import PAPER_SECONDS, Row
from tasks.templates import render
from tasks.training.data import SampleRef, read_fields

PAGE, SHEET, TABLE = "table1.md", "table1.png", "table1.json"
EDITS_SHOWN = 4
DPI = 100


def write_page(folder: Path, command: str, document: Row, settings: Settings, absent: Mapping[str, str]) -> Path:
    """Write the page.  absent: methods that did not run, and why."""
    text = render(
        "table1.md.j2",
        command=command, document=document, settings=settings, paper=PAPER_SECONDS, ours=OURS,
        absent=absent, sheet=SHEET, steps=editor_steps(settings),
    )  # fmt: skip
    path = folder / PAGE
    path.write_text(text, encoding="utf-8")
    return path


def draw_sheet(
    path: Path, rows: Sequence[Row], folders: Mapping[tuple[str, str], Path], samples: Mapping[str, SampleRef],
    references: Mapping[str, SampleRef],
) -> Path:  # fmt: skip
    """Draw Figure 4: a row a method, its edit from the portrait's camera and from two others.

    folders: of partitions by method and style.  Shown are, for the first styles, one edit by words and one by a
    picture, of the first portraits that every method edited.
    """
    from matplotlib.figure import Figure

    methods = [method for method in METHODS if any(row["method"] == method.name for row in rows)]
    shown = choose_shown(rows, [method.name for method in methods])
    size = (3.1 * len(shown) + 1.2, 1.15 * (len(methods) + 1) + 0.6)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(len(methods) + 1, len(shown), squeeze=False)
    for column, (key, kind) in enumerate(shown):
        sample = samples[key]
        pictures = [read_fields(sample, ["portrait.png"]).portrait]
        title = sample.prompt if kind == TEXT else f"{sample.style}, by the picture on the right"
        if kind == IMAGE:
            pictures.append(read_fields(references[key], ["pseudo_label.png"]).pseudo_label)
        blank = np.full_like(pictures[0], 255)
        grid[0, column].imshow(np.concatenate([*pictures, *[blank] * (3 - len(pictures))], axis=1))
        grid[0, column].set_title(textwrap.fill(title, 36), fontsize=8)
        for place, method in enumerate(methods, start=1):
            strip = folders[method.name, sample.style] / PICTURES / f"{key}-{kind}.png"
            views = np.asarray(Image.open(strip))
            grid[place, column].imshow(views[:, : 3 * views.shape[0]])
    for place, title in enumerate(["portrait", *(method.title for method in methods)]):
        grid[place, 0].set_ylabel(textwrap.fill(title, 14), fontsize=8)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    figure.savefig(path)
    return path


def choose_shown(rows: Sequence[Row], methods: Sequence[str]) -> list[tuple[str, str]]:
    """Choose keys and kinds of prompt that every method has, style by style, words and pictures in turn."""
    made: dict[tuple[str, str, str], set[Any]] = {}
    for row in rows:
        made.setdefault((row["style"], row["key"], row["kind"]), set()).add(row["method"])
    whole = sorted(edit for edit, by in made.items() if by.issuperset(methods))
    shown = []
    for style in sorted({style for style, _, _ in whole}):
        for kind in (TEXT, IMAGE):
            first = next((key for of, key, by in whole if of == style and by == kind), None)
            shown += [(first, kind)] if first is not None else []
    return shown[:EDITS_SHOWN]
