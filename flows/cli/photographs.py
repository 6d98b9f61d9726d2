"""Command that makes aligned portraits of photographs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import Json, Overrides, Profile

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(rich_markup_mode=None)


@app.command()
def align(
    photographs: Annotated[
        list[str], typer.Argument(metavar="PHOTO|FOLDER|GLOB...", help="Photographs: files, folders, quoted patterns.")
    ],
    out: Annotated[Path, typer.Option(help="Target: a new .zip; beside it, a JSON line of each photograph.")] = Path(
        "portraits.zip"
    ),
    size: Annotated[int, typer.Option(min=16, help="Side of a portrait, px.")] = 512,
    faces: Annotated[str, typer.Option(help="Photographs with several faces: reject, largest or all.")] = "reject",
    sheet: Annotated[
        Path | None, typer.Option(help="Write a contact sheet, such as sheet.html: crops, landmarks, poses, reasons.")
    ] = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find the faces in photographs, cut and pose them. An interrupted run goes on where it ended.

    The portraits have EG3D cameras.
    """
    if faces not in ("reject", "largest", "all"):
        raise typer.BadParameter(f"'{faces}' is none of reject, largest, all", param_hint="--faces")
    settings = Workspace.open(profile, [f"align.size={size}", f"align.faces={faces}", *(overrides or [])]).settings
    with screen.only_results_on_stdout():
        from tasks.photographs.align_files import align_photographs

        outcome = align_photographs(photographs, out, sheet, settings)
    screen.show(outcome, as_json, show_align)


def show_align(document: dict[str, Any], console: "Console") -> None:
    """Print the document of `align_photographs`."""
    for path in document["files"]:
        screen.line(path, console)
    reasons = "".join(f"; {count} {reason}" for reason, count in document["left_out"].items())
    rows = {
        "photographs": document["photographs"],
        "portraits": f"{document['portraits']}{reasons}",
        "seconds": f"{document['seconds']}, {document['seconds_each']} a photograph",
    }
    screen.fields(rows, console)
