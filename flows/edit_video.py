"""Flow edit-video: from a video and a prompt to input | edited | from the side."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from data_catalog.config.errors import UserError
from data_catalog.store.store import check_writable
from data_catalog.workspace import Workspace
from flows.run.declare import flow
from flows.run.form import Overrides, Profile, RunName, RunNote, RunTags, StudentName, shown
from flows.run.lifecycle import tracked
from flows.track.labels import labelled
from flows.track.mlflow_runs import numbers
from flows.track.prefect_pages import ProgressBar, log_plainly
from tasks.progress import Progress, listening
from tasks.student.api import Student
from tasks.video.edit import Edited, check_outputs, edit_clip
from tasks.video.example import write_example
from tasks.video.source import Clip, open_clip

EXAMPLE_SEED, EXAMPLE_FRAMES = 3, 72
VIDEO = "A video, or a folder of pictures; empty: a head of the embedded world that talks and turns."


@flow(name="edit-video")
def edit_video(
    profile: Profile = "demo",
    overrides: Overrides = None,
    video: Annotated[str | None, shown("string", VIDEO)] = None,
    prompt: Annotated[str | None, shown("string", "What to change, in words.")] = None,
    reference: Annotated[str | None, shown("string", "Picture of the change, instead of a prompt.")] = None,
    out: Annotated[str | None, shown("string", "File to write; empty: edited.mp4 in the data root.")] = None,
    views: Annotated[bool, shown("boolean", "Write the views from the side as well.")] = False,
    student: StudentName = None,
    style: Annotated[str | None, shown("string", "A style that the student was adapted to.")] = None,
    name: RunName = None,
    note: RunNote = None,
    tags: RunTags = None,
) -> dict[str, Any]:
    """Edit every frame of a video (a file, or a folder of pictures) by a text or a reference picture.

    Sound and times stay. After an interruption, the same call resumes.
    """
    log_plainly()
    workspace = Workspace.open(profile, overrides)
    check_writable(workspace.root)
    clip = open_clip(find_video(video, workspace), workspace.settings.portraits.max_pixels)
    target = Path(out) if out is not None else workspace.root / "edited.mp4"
    check_outputs(clip, target)
    editor = Student.from_workspace(workspace, student, style)
    wish = editor.read_prompt(prompt, reference)
    with (
        labelled(name, note, tags),
        tracked(workspace, "edit-video", {"style": style, "prompt": prompt}) as (tracker, _),
    ):
        tracker.params(tracker.run_id, describe(clip, prompt, reference, editor.origin, style))
        bar = ProgressBar("edit-video")

        def hear(progress: Progress) -> None:
            if progress.total:
                bar.update(progress.step, progress.total)

        with listening(hear):
            edited = edit_clip(editor, clip, wish, target, views, workspace.root)
        outcome = summary(edited)
        tracker.metrics(tracker.run_id, numbers(outcome))
        for path in edited.files:
            tracker.file(path, "videos")
    return {**outcome, "student": editor.origin, "mlflow_run_id": tracker.run_id}


def find_video(video: str | None, workspace: Workspace) -> Path:
    """Return the named video, or the embedded world's own, made at its first use."""
    if video is not None:
        return Path(video)
    if workspace.settings.world != "embedded":
        raise UserError("there is no video to edit", expected="a file, or a folder of pictures")
    path = workspace.root / "video" / "example.mp4"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_example(path, EXAMPLE_SEED, EXAMPLE_FRAMES)
    return path


def describe(clip: Clip, prompt: str | None, reference: str | None, student: str, style: str | None) -> dict[str, str]:
    """The parameters of the MLflow run, beside the settings."""
    wish = {"video.prompt": prompt} if prompt is not None else {"video.reference": str(reference)}
    made_by = {"video.student": student} | ({"video.style": style} if style is not None else {})
    return {"video.clip": str(clip.path), "video.clip_digest": clip.digest(), **wish, **made_by}


def summary(edited: Edited) -> dict[str, Any]:
    """Return the values that the flow returns and the command prints."""
    made = edited.frames - edited.resumed_at
    return {
        **asdict(edited),
        "files": [str(path) for path in edited.files],
        "seconds": round(edited.seconds, 2),
        "seconds_per_frame": round(edited.seconds / max(made, 1), 4),
    }
