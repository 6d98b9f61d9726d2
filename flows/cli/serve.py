"""The page."""

import sys
from typing import Annotated

import typer

from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile

app = typer.Typer(rich_markup_mode=None)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Where to listen; others than this machine reach any but loopback.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Without it, 7860 or one that is free.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show a page in the browser: edit portraits, browse datasets, compare students."""
    from flows.page.serving import prepare, serve

    workspace = Workspace.open(profile, overrides)
    document = prepare(host, port, workspace)
    screen.show(document, as_json, screen.fields)
    sys.stdout.flush()  # whoever reads it from a pipe waits for it
    with screen.only_results_on_stdout():
        serve(host, document["port"], workspace)
