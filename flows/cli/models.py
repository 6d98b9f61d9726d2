"""Commands of the models: the state of their weights, and getting them."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile
from flows.cli.screen import Document, line, show_table, shown

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def models(
    context: typer.Context, profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False
) -> None:
    """List the models and their weights, or fetch them. They are those of the profile's world."""
    if context.invoked_subcommand is not None:
        return
    from flows.care.status import describe_models

    screen.show(describe_models(Workspace.open(profile, overrides)), as_json, models_table)


@app.command("fetch")
def models_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Models to fetch; by default all of the world.")] = None,
    profile: Profile = "paper",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Fetch weights that have a public address, verify them, and say where to get the others.

    A fetch that broke off is continued. Exit 1 if one failed.
    """
    from flows.care.fetch import fetch_models

    document = fetch_models(names or [], Workspace.open(profile, overrides))
    screen.show(document, as_json, fetched_table)
    if any(row["state"] == "failed" for row in document["models"]):
        sys.exit(1)


def models_table(document: Document, console: Console) -> None:
    """Print a row for each model; `--json` has the whole digests."""
    rows = []
    for row in document["models"]:
        size = f"{row['bytes'] / 1e6:.1f}" if row["bytes"] else "-"
        rows.append([row["model"], row["state"], size, shown(row["digest"]), shown(row["source"])])
    show_table(("model", "state", "MB", "digest", "source"), rows, console)


def fetched_table(document: Document, console: Console) -> None:
    """Print a line for each model, and below it where it lies or where it is from."""
    for row in document["models"]:
        console.print(f"{row['model']:<10} {row['state']}")
        told = row["get"] if row["state"] in ("failed", "by hand") else row["where"]
        for each in told.splitlines():
            line(f"  {each}", console)
