"""Command that serves the page."""

import sys
from typing import Annotated

import typer

from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile, StudentName

app = typer.Typer(rich_markup_mode=None)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; anything but loopback is reachable from other machines.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port; without it, 7860 or a free one.")] = None,
    student: StudentName = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Open a page in the browser: edit, browse, compare."""
    from flows.page.serving import prepare, serve

    workspace = Workspace.open(profile, overrides)
    document = prepare(host, port, workspace, student)
    screen.show(document, as_json, screen.fields)
    sys.stdout.flush()  # a reader of the pipe waits for it
    with screen.only_results_on_stdout():
        serve(host, document["port"], workspace, student)
