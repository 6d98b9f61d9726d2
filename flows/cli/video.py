"""Command that edits videos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli import screen
from flows.cli.options import (
    AdaptedStyle,
    Json,
    Overrides,
    Profile,
    Prompt,
    Reference,
    RunName,
    RunNote,
    RunTags,
    StudentName,
    check_one_asks,
)

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(rich_markup_mode=None)


@app.command("edit-video")
def edit_video(
    video: Annotated[
        Path | None,
        typer.Argument(
            metavar="[VIDEO|FOLDER]", help="Video, or folder of frames; by default a head of the embedded world."
        ),
    ] = None,
    prompt: Prompt = None,
    reference: Reference = None,
    out: Annotated[Path, typer.Option(help="Output: input, edited and from the side, in one video.")] = Path(
        "edited.mp4"
    ),
    views: Annotated[
        bool,
        typer.Option("--views", help="Also write the edit alone, from the right and from the left, each as a video."),
    ] = False,
    student: StudentName = None,
    style: AdaptedStyle = None,
    name: RunName = None,
    tags: RunTags = None,
    note: RunNote = None,
    profile: Profile = "demo",
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Edit a video frame by frame. Sound and times stay. An interrupted edit resumes at its frame."""
    check_one_asks(prompt, reference)
    given: dict[str, Any] = {"video": video and str(video), "prompt": prompt, "reference": reference and str(reference)}
    given |= {"out": str(out), "views": views, "student": student, "style": style}
    labels = {"name": name, "note": note, "tags": tags}
    screen.show_flow("edit-video", profile, overrides, as_json, show_video, **labels, **given)


def show_video(document: dict[str, Any], console: "Console") -> None:
    """Print the outcome of the flow."""
    for path in document["files"]:
        screen.line(path, console)
    faces = document["faces"] if document["detects"] else "not looked for, for there is no face detector"
    made = document["frames"] - document["resumed_at"]
    rows = {
        "frames": f"{document['frames']}, with a face {faces}, shots {document['shots']}",
        "made now": f"{made} in {document['seconds']} s, {document['seconds_per_frame']} s each",
        "mlflow_run_id": document["mlflow_run_id"],
    }
    screen.fields(rows, console)
