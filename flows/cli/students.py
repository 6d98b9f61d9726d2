"""Commands that use a student."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_catalog.config.places import data_root
from data_catalog.products.names import names_of
from data_catalog.workspace import Workspace
from flows.cli import screen
from flows.cli.options import (
    AdaptedStyle,
    DatasetName,
    Json,
    Overrides,
    Profile,
    Prompt,
    Reference,
    StudentName,
    check_one_asks,
)
from flows.cli.screen import fields, line, say, shown
from tasks.sources.names import counted

if TYPE_CHECKING:
    from rich.console import Console

FILES_SHOWN = 24

app = typer.Typer(rich_markup_mode=None)


@app.command()
def edit(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Portraits: files, folders, quoted patterns.")
    ],
    prompt: Prompt = None,
    reference: Reference = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures; several portraits get a folder each.")] = Path(
        "edited"
    ),
    views: Annotated[int, typer.Option(min=0, help="Number of novel views.")] = 4,
    video: Annotated[
        Path | None, typer.Option(help="Write the turntable as this video, such as turntable.mp4.")
    ] = None,
    mesh: Annotated[Path | None, typer.Option(help="Write the head's surface, such as head.ply.")] = None,
    student: StudentName = None,
    style: AdaptedStyle = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Edit portraits: the picture, other views, a turntable, a mesh."""
    check_one_asks(prompt, reference)
    with screen.only_results_on_stdout():
        from tasks.student.edit_files import Products, edit_portraits

        products = Products(views, video, mesh)
        workspace = Workspace.open(profile, overrides)
        outcome = edit_portraits(images, prompt, reference, out, products, student, workspace, style)
    screen.show(outcome, as_json, show_edit)


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="Target: a new folder; for a dataset also a new .zip.")],
    form: Annotated[
        str, typer.Option("--format", help="hf: the student for the Hugging Face hub; eg3d or 3dpe: the dataset.")
    ] = "hf",
    student: StudentName = None,
    dataset: DatasetName = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write a student, or a dataset, for use elsewhere. A student is a self-contained folder."""
    if form not in ("hf", "eg3d", "3dpe"):
        raise typer.BadParameter(f"'{form}' is none of hf, eg3d, 3dpe", param_hint="--format")
    with screen.only_results_on_stdout():
        from tasks.datasets.export import export_dataset
        from tasks.student.export import export_student

        if form == "hf":
            outcome = export_student(path, student, Workspace.open(profile, overrides))
        else:
            outcome = export_dataset(form, path, dataset, Workspace.open(profile, overrides))
    screen.show(outcome, as_json, show_export)


@app.command("import-student")
def import_student(
    file: Annotated[Path, typer.Argument(help="The authors' file, 3dpe.pt.")],
    name: Annotated[str, typer.Option(help="Name of the student, for --student.")] = "authors",
    profile: Profile = "paper",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Take in the student that the paper's authors published. It is then used like one of ours."""
    with screen.only_results_on_stdout():
        from tasks.student import importing

        outcome = importing.import_student(file, name, Workspace.open(profile, overrides))
    screen.show(outcome, as_json, screen.fields)


def show_export(document: dict[str, Any], console: "Console") -> None:
    """Print what was exported, with its size in MB, and the files last."""
    told = {name: value for name, value in document.items() if name not in ("bytes", "files")}
    if "bytes" in document:
        told["size"] = f"{document['bytes'] / 1e6:.1f} MB"
    fields(told | {"files": document.get("files", [])}, console)


def show_edit(document: dict[str, Any], console: "Console") -> None:
    """Print the document of `edit_portraits`: the student first, the pictures last."""
    for image in document["rejected"]:
        say(f"not edited: {image['reason']}", console)
    names = "".join(f", named {name}" for name in names_of(data_root(), document["student"]))
    aligned, camera = document["aligned_here"], document["camera_source"]
    camera += "" if document["detects"] else ", for there is no face detector"
    adapted = f", adapted to {document['style']}" if document["style"] else ""
    rows = {
        "student": f"{shown(document['student'])}{names}{adapted}",
        "portraits": f"{document['portraits']} edited, {aligned} aligned on the way",
        "camera": camera,
        "portrait to picture": f"{document['seconds']:.3g} s",
        "triplane": f"{document['seconds_triplane']:.3g} s, once for a portrait and prompt",
        "another view": f"{document['seconds_view']:.3g} s, only rendered",
    }
    width = max(map(len, rows))
    for name, text in rows.items():
        line(f"{name:<{width}}  {text}", console)
    console.print()
    files = document["files"]
    for path in files[:FILES_SHOWN]:
        line(path, console)
    if len(files) > FILES_SHOWN:
        console.print(f"and {counted(len(files) - FILES_SHOWN, 'file')} more")
