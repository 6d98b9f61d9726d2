"""Command of the paper's Table 1, with all its rows."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from flows.cli import screen
from flows.cli.completion import complete_style
from flows.cli.options import Force, Json, OtherDataset, Overrides, Profile, RunName, RunNote, RunTags, StudentName

app = typer.Typer(rich_markup_mode=None)


@app.command()
def baselines(
    portraits: Annotated[int | None, typer.Option(min=1, help="Test portraits.  [default: of the settings]")] = None,
    styles: Annotated[
        list[str] | None,
        typer.Option("--styles", help="Style; may be repeated.  [default: all]", autocompletion=complete_style),
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="STYLE...", help="Further styles.")] = None,
    student: StudentName = None,
    dataset: OtherDataset = None,
    yes: Annotated[bool, typer.Option("--yes", help="Go on without a GPU in the paper world.")] = False,
    force: Force = None,
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Compare the student with the paper's other systems. It makes Table 1 and Figure 4 in minutes to hours."""
    named = [*(styles or []), *(more or [])] or None
    given = {"student": student, "dataset": dataset, "portraits": portraits, "styles": named, "yes": yes}
    labels = {"name": name, "note": note, "tags": tags}
    screen.show_flow("baselines", profile, overrides, as_json, show_table, **labels, **given, force=force)


def show_table(document: dict[str, Any], console: Console) -> None:
    """Print the rows; CLIP is grey where a method optimises it."""
    heads = ("method", "ID_t", "CLIP_r", "3D", "LPIPS", "before, dB", "s / edit", "edits", "rejected")
    rows = []
    for row in document["table"]:
        clip = _number(row["clip"])
        rows.append([
            row["method"], _number(row["id"]), Text(f"({clip})", "dim") if row["steered"] else clip,
            _number(row["three_d"]), _number(row["lpips"]), _number(row["reconstruction_psnr"], 1),
            _number(row["seconds_per_image"], 2), str(row["edits"]), str(row["rejected"]),
        ])  # fmt: skip
    screen.show_table(heads, rows, console)
    for judged in document["order"]:
        screen.say(f"ours first by {judged['column']}: {judged['verdict']}", console)
    for method, why in document["absent"].items():
        screen.say(f"{method} did not run: {why}", console)
    shown = ("files", "partitions_run", "partitions_cached", "rejected", "mlflow_run_id", "seconds")
    screen.fields({name: document[name] for name in shown}, console)


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
