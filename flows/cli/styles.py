"""Commands of a profile's styles."""

from typing import Annotated

import typer
from rich.console import Console

from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile
from flows.cli.screen import Document, fields, say, show_rows, show_table, shown
from tasks.sources.names import counted

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def styles(
    context: typer.Context, profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False
) -> None:
    """List the styles; add one, or check them. The list shows prompts, state and yield."""
    if context.invoked_subcommand is not None:
        return
    from flows.ask.styles import describe_styles

    screen.show(describe_styles(Workspace.open(profile, overrides)), as_json, styles_table)


@app.command("add")
def styles_add(
    instruction: Annotated[str, typer.Argument(help='For example "give her an afro".')],
    name: Annotated[str | None, typer.Option(help="Name of the style; by default taken from the instruction.")] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write the file of a new style."""
    from flows.ask.styles import add_style

    screen.show(add_style(instruction, name, Workspace.open(profile, overrides)), as_json, added_lines)


@app.command("check")
def styles_check(profile: Profile = "demo", overrides: Overrides = None, as_json: Json = False) -> None:
    """Check the style files; exit 1 if a build would stop or leak."""
    from flows.ask.style_check import check_styles

    document = check_styles(Workspace.open(profile, overrides))
    screen.show(document, as_json, style_check_table)
    if not document["ok"]:
        raise typer.Exit(1)


def styles_table(document: Document, console: Console) -> None:
    """Print a row for each style: state, prompts, samples kept and their share, and its first prompt."""
    rows = [
        [
            row["style"],
            *(shown(row[name]) for name in ("state", "train", "test", "kept")),
            "-" if row["yield"] is None else f"{100 * row['yield']:.0f} %",
            row["seed_prompt"],
        ]
        for row in document["styles"]
    ]
    below = [{"failed": row["problem"]} if row["problem"] else {} for row in document["styles"]]
    show_table(("style", "state", "train", "test", "kept", "yield", "prompt"), rows, console, below)
    if "note" in document:
        say(document["note"], console)


def added_lines(document: Document, console: Console) -> None:
    """Print the new style's file, and the command that makes it."""
    fields({name: document[name] for name in ("style", "seed_prompt", "file")}, console)
    for name in ("note", "next"):
        if name in document:
            say(f"{name}: {document[name]}", console)


def style_check_table(document: Document, console: Console) -> None:
    errors = sum(problem["level"] == "error" for problem in document["problems"])
    console.print(f"{counted(document['checked'], 'style')} in {document['folder']}, {counted(errors, 'error')}")
    if document["problems"]:
        show_rows(document["problems"], ("style", "level", "what"), console)
    if document["known"]:
        say(document["known"], console)
