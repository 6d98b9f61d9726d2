"""Command that makes one sample again."""

from pathlib import Path
from typing import Annotated

import typer

from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile

app = typer.Typer(rich_markup_mode=None)


@app.command()
def regen(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of a sample, such as p0123456789-zombie-3-0.")],
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("regenerated"),
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Make one pseudo-label again, and compare its bytes."""
    with screen.only_results_on_stdout():
        from flows.care.regen import regenerate

        document = regenerate(key, out, Workspace.open(profile, overrides))
    screen.show(document, as_json, screen.fields)
    if not document["same"]:
        raise typer.Exit(1)
