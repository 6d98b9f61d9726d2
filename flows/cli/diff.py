"""Two datasets beside each other."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from data_catalog.config.places import shown_path
from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.completion import complete_dataset
from flows.cli.options import Json, Overrides, Profile
from flows.cli.screen import Document, line, say, show_table
from tasks.sources.names import counted

LARGE_EFFECT = 0.2  # Cohen's d; larger shifts are printed in bold
STYLES_SHOWN = 3  # names of styles listed for a cause
SHORT = {  # short names of scores, for narrow columns
    "score_clip_image": "CLIP image",
    "score_clip_text": "CLIP text",
    "score_clip_direction": "CLIP dir",
    "score_identity": "ID",
    "score_ssim": "SSIM",
    "score_lpips": "LPIPS",
    "score_camera_drift_deg": "drift deg",
    "score_teacher_lpips": "teacher LPIPS",
    "score_view_identity": "view ID",
}

app = typer.Typer(rich_markup_mode=None)


@app.command()
def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="Digest (or its beginning) or folder of a dataset, or latest.",
            autocompletion=complete_dataset,
        ),
    ],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="DATASET",
            help="The other dataset.  [default: of the settings]",
            autocompletion=complete_dataset,
        ),
    ] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Compare two datasets: samples, scores by style, settings."""
    from flows.ask.dataset_comparison import diff_datasets

    screen.show(diff_datasets(a, b, page, Workspace.open(profile, overrides)), as_json, diff_table)


def diff_table(document: Document, console: Console) -> None:
    """Counts, reasons, and per style the shift of each score."""
    for side in "ab":
        one = document[side]
        line(f"{side.upper()}  {one['digest'][:16]}  {counted(one['samples'], 'sample')}", console)
        line(f"   {shown_path(Path(one['folder']))}", console)
    say(", ".join(f"{count} {word}" for word, count in document["samples"].items()), console)
    if document["changes"]:
        words = ", ".join(f"{name} {count}" for name, count in document["changes"].items())
        say(f"changed samples have another: {words}", console)
    settings_table(document["settings"], console)
    _causes(document["causes"], console)
    if sum(count for word, count in document["samples"].items() if word != "unchanged"):
        _styles(document["styles"], console)
    if document["page"]:
        line(f"page: {document['page']}", console)


def settings_table(rows: list[Document], console: Console) -> None:
    """Settings that differ, A beside B."""
    console.print()
    if not rows:
        say("no setting differs", console)
        return
    show_table(("setting", "A", "B"), [[row["setting"], row["a"] or "-", row["b"] or "-"] for row in rows], console)


def _causes(causes: list[Document], console: Console) -> None:
    for cause in causes:
        names = cause["styles"]
        styles = ", ".join(names) if len(names) <= STYLES_SHOWN else f"{len(names)} styles"
        say(f"{cause['stage']}: {cause['what']} {cause['a'] or '-'} -> {cause['b'] or '-'} ({styles})", console)


def _styles(styles: list[Document], console: Console) -> None:
    """Print two tables: counts, and shifts of the scores."""
    counts = []
    for row in styles:
        changes = [str(row[name]) for name in ("added", "removed", "changed")]
        shares = f"{_percent(row['yield']['a'])} -> {_percent(row['yield']['b'])}"
        counts.append([row["style"], f"{row['samples']['a']} -> {row['samples']['b']}", *changes, shares])
    console.print()
    show_table(("style", "samples", "added", "removed", "changed", "yield"), counts, console)
    names = list(dict.fromkeys(name for row in styles for name in row["scores"]))
    heads = [SHORT.get(name, name.removeprefix("score_")) for name in names]
    shifts = [[row["style"], *(_shift(row["scores"].get(name)) for name in names)] for row in styles]
    console.print()
    show_table(("style", *heads), shifts, console)
    say(f"mean of B - mean of A; bold: more than {LARGE_EFFECT} of the samples' own spread", console)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _shift(score: Document | None) -> Text:
    if score is None or score["shift"] is None:
        return Text("-")
    large = score["effect"] is not None and abs(score["effect"]) > LARGE_EFFECT
    return Text(f"{score['shift']:+.3f}", style="bold" if large else "")
