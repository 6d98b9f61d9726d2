"""Two datasets, or two runs, beside each other."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_catalog.config.places import shown_path
from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile

Document = dict[str, Any]
LARGE_EFFECT = 0.2  # a score that moved by more than this part of the samples' spread is set in bold
STYLES_SHOWN = 3  # of a cause, by name
SHORT = {  # names of scores that fit side by side
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
    a: Annotated[str, typer.Argument(metavar="DATASET", help="Its digest (or the beginning), latest, or its folder.")],
    b: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="The other one.  [default: the one of the settings]")
    ] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what differs between two datasets: samples, scores by style, settings."""
    from flows.ask.dataset_comparison import diff_datasets

    screen.show(diff_datasets(a, b, page, Workspace.open(profile, overrides)), as_json, diff_table)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="RUN", help="An MLflow run's id (or its beginning), name, or latest.")],
    b: Annotated[str, typer.Argument(metavar="RUN", help="The other one, which it is compared with.")] = "latest",
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Say what differs between two runs: settings, datasets, metrics, and what their students draw."""
    with screen.only_results_on_stdout():
        from flows.ask.run_comparison import compare_runs

        document = compare_runs(a, b, page, Workspace.open(profile, overrides))
    screen.show(document, as_json, compare_table)


def diff_table(document: Document, console: Console) -> None:
    """Counts, reasons, and per style the shift of each score."""
    for side in "ab":
        one = document[side]
        _line(
            console,
            f"{side.upper()}  {one['digest'][:16]}  {one['samples']} samples  {shown_path(Path(one['folder']))}",
        )
    _line(console, ", ".join(f"{count} {word}" for word, count in document["samples"].items()))
    if document["changes"]:
        words = ", ".join(f"{name} {count}" for name, count in document["changes"].items())
        _line(console, f"changed samples have another: {words}")
    settings_table(document["settings"], console)
    _causes(document["causes"], console)
    if sum(count for word, count in document["samples"].items() if word != "unchanged"):
        _styles(document["styles"], console)
    _say_page(document, console)


def compare_table(document: Document, console: Console) -> None:
    """Settings that differ, the datasets in short, and the metrics that differ side by side."""
    for side in "ab":
        run = document[side]
        digests = [f"{name} {run[name][:12]}" for name in ("dataset", "student") if run[name]]
        words = [side.upper(), "", run["run_id"][:12], run["name"], run["started"], run["status"].lower(), *digests]
        _line(console, " ".join(words))
    settings_table(document["settings"], console)
    _dataset_in_short(document, console)
    differing = [row for row in document["metrics"] if row["a"] != row["b"]]
    table = _table("metric", "A", "B", "B - A", numbers=True)
    for row in differing:
        change = "-" if row["change"] is None else f"{row['change']:+.4g}"
        style = {"b": "green", "a": "red", None: ""}[row["better"]]
        table.add_row(Text(row["metric"]), _number(row["a"]), _number(row["b"]), Text(change, style=style))
    console.print()
    console.print(table)
    _line(console, f"{len(document['metrics']) - len(differing)} other metrics are equal")
    _say_page(document, console)


def _dataset_in_short(document: Document, console: Console) -> None:
    console.print()
    digests = [document[side]["dataset"] for side in "ab"]
    if document["dataset"] is None:
        known = [digest[:12] if digest else "none" for digest in digests]
        gone = "" if None in digests else " (no longer here)"
        _line(console, f"datasets: {known[0]} and {known[1]}{gone}")
    elif digests[0] == digests[1]:
        _line(console, f"both have the dataset {digests[0][:12]}")
    else:
        counts = ", ".join(f"{count} {word}" for word, count in document["dataset"]["samples"].items())
        _line(console, f"datasets: {counts} samples (stillroom diff {digests[0][:12]} {digests[1][:12]})")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def settings_table(rows: list[Document], console: Console) -> None:
    """Settings that differ, A beside B."""
    console.print()
    if not rows:
        _line(console, "no setting differs")
        return
    table = _table("setting", "A", "B")
    for row in rows:
        table.add_row(Text(row["setting"]), Text(row["a"] or "-"), Text(row["b"] or "-"))
    console.print(table)


def _causes(causes: list[Document], console: Console) -> None:
    for cause in causes:
        names = cause["styles"]
        styles = ", ".join(names) if len(names) <= STYLES_SHOWN else f"{len(names)} styles"
        _line(console, f"{cause['stage']}: {cause['what']} {cause['a'] or '-'} -> {cause['b'] or '-'} ({styles})")


def _styles(styles: list[Document], console: Console) -> None:
    """Two narrow tables, so that they fit into a terminal of 80 columns."""
    counts = _table("style", "samples", "added", "removed", "changed", "yield", numbers=True)
    for row in styles:
        changes = [str(row[name]) for name in ("added", "removed", "changed")]
        shares = f"{_percent(row['yield']['a'])} -> {_percent(row['yield']['b'])}"
        counts.add_row(Text(row["style"]), f"{row['samples']['a']} -> {row['samples']['b']}", *changes, shares)
    console.print()
    console.print(counts)
    names = list(dict.fromkeys(name for row in styles for name in row["scores"]))
    shifts = _table("style", *(SHORT.get(name, name.removeprefix("score_")) for name in names), numbers=True)
    for row in styles:
        shifts.add_row(Text(row["style"]), *(_shift(row["scores"].get(name)) for name in names))
    console.print()
    console.print(shifts)
    _line(console, f"mean of B - mean of A; bold: more than {LARGE_EFFECT} of the samples' own spread")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _shift(score: Document | None) -> Text:
    if score is None or score["shift"] is None:
        return Text("-")
    large = score["effect"] is not None and abs(score["effect"]) > LARGE_EFFECT
    return Text(f"{score['shift']:+.3f}", style="bold" if large else "")


def _say_page(document: Document, console: Console) -> None:
    if document["page"]:
        _line(console, f"page: {document['page']}")


def _table(*columns: str, numbers: bool = False) -> Table:
    """The first column is a name; with `numbers`, the others stand to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1 if numbers else 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        justify = "right" if numbers and index else "left"
        table.add_column(name, overflow="fold", no_wrap=index == 0, justify=justify)  # type: ignore[arg-type]
    return table


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
