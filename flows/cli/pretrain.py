"""Command that trains the embedded networks again."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile, RunName, RunNote, RunTags

app = typer.Typer(rich_markup_mode=None)


@app.command()
def pretrain(
    networks: Annotated[list[str] | None, typer.Argument(help="Names, such as teacher; by default all.")] = None,
    exam: Annotated[bool, typer.Option("--exam", help="Only examine the present networks.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps, instead of the recipe's.")] = None,
    into: Annotated[Path | None, typer.Option(help="A folder for the weights, instead of the project's own.")] = None,
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train the embedded networks again, and examine them. Writes their card and a report."""
    given = {"networks": networks, "steps": steps, "into": into and str(into), "exam_only": exam}
    labels = {"name": name, "note": note, "tags": tags}
    screen.show_flow("pretrain-embedded", profile, overrides, as_json, show_exam, **labels, **given)


def show_exam(document: dict[str, Any], console: Console) -> None:
    """Print the numbers that reach their bar, and the rest."""
    rows = [
        [row["network"], row["title"], row["bar"], f"{row['reached']} of {row['of']}", row["worst"]]
        for row in document["bars"]
    ]
    screen.show_table(("network", "number", "bar", "reached", "the worst"), rows, console)
    screen.fields({"report": document["report"], "mlflow_run_id": document["mlflow_run_id"]}, console)
