"""Report of the embedded networks: curves, numbers and pictures on one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.lab.pretraining import recipes
from tasks.lab.pretraining.card import ABOUT, describe_bars, tabulate
from tasks.lab.pretraining.curve import draw_curve
from tasks.lab.pretraining.marks import Examined
from tasks.pictures.inline import embed_picture
from tasks.templates import render

REPORT = "report.html"


def write_report(examined: Mapping[str, Examined], work: Path) -> Path:
    """Write report.html into `work`: the networks of one exam, with the curves of those trained in `work`."""
    marks = {name: [mark.describe() for mark in found.marks] for name, found in examined.items()}
    networks = [
        {
            "name": name,
            "about": ABOUT[name],
            "curve": draw_curve(recipes.read_curve(work, name)),
            "tables": tabulate(marks[name]),
            "sheets": [
                {"title": sheet.title, "columns": sheet.columns, "picture": embed_picture(sheet.picture)}
                for sheet in found.sheets
            ],
        }
        for name, found in examined.items()
    ]
    page = render(
        "pretraining.html.j2",
        networks=networks,
        bars=describe_bars({name: {"exam": rows} for name, rows in marks.items()}),
        held_out=recipes.HELD_OUT,
    )
    path = work / REPORT
    path.write_text(page, encoding="utf-8")
    return path
