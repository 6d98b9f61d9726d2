"""Commands for a user's own style."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_catalog.config.names import check_slug
from data_catalog.config.places import shown_path
from flows.cli import screen
from flows.cli.completion import complete_style
from flows.cli.options import Force, Json, Overrides, Profile, RunName, RunNote, RunTags, StudentName

app = typer.Typer(rich_markup_mode=None)


@app.command()
def adapt(
    style: Annotated[
        str,
        typer.Argument(
            help="A style file's name, or, with --pairs, a name for the new style.", autocompletion=complete_style
        ),
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(help="Folder with input/ and edited/ pictures of equal names; by default the editor's."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="With --pairs: the edit, in words.")] = None,
    student: StudentName = None,
    force: Force = None,
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Teach a student one more style from a few pairs. It makes a small file beside the student in a minute."""
    if prompt is not None and pairs is None:
        raise typer.BadParameter("goes with --pairs; otherwise the style's file says it", param_hint="--prompt")
    check_slug(style)
    given = {"style": style, "student": student, "pairs": pairs and str(pairs), "prompt": prompt, "force": force}
    labels = {"name": name, "note": note, "tags": tags}
    screen.show_flow("adapt-style", profile, overrides, as_json, adapted_table, **labels, **given)


@app.command()
def ablate(
    style: Annotated[
        str | None, typer.Argument(help="Style to adapt to, unknown to every base; by default a random one.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with other pairs.")] = 3,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Measure how many styles and pairs a student needs. Writes a page; takes long."""
    screen.show_flow("ablate", profile, overrides, as_json, screen.fields, style=style, seeds=seeds)


def adapted_table(document: screen.Document, console: Console) -> None:
    """Print the adapted style: its distance before and after, its size, its files."""
    told = {"style": document["style"], "student": document["base"], "pairs": document["pairs"]}
    if curve := document["curve"]:
        passed = f"{curve[0]['lpips']:.3f} -> {curve[-1]['lpips']:.3f} after {curve[-1]['seconds']:.0f} s"
        told["LPIPS"] = f"{passed}, to the {document['lpips_to']}"
    told |= {"size": f"{document['delta_bytes'] / 1e6:.1f} MB"}
    screen.fields(told | {name: document[name] for name in ("mlflow_run_id", "seconds") if name in document}, console)
    files = [Path(path) for path in document["files"]]
    for name, path in [("picture", path) for path in files if path.suffix == ".png"] + [("folder", files[0].parent)]:
        screen.line(f"{name:<{screen.LABEL}} {shown_path(path)}", console)
    edit = f"stillroom edit IMAGE --style {document['style']} --prompt TEXT"
    screen.next_steps(console, {edit: "use it", "stillroom students": "students and their styles"})
