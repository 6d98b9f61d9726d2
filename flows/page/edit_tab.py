"""First tab: edit a portrait, turn it, save a turntable of it."""

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from flows.page import figures
from flows.page.inputs import QUIET, build_inputs, read_wish, tell_alignment, tell_notes, turn_sliders
from flows.page.shelf import Shelf
from tasks.pictures.inline import colour_depth

if TYPE_CHECKING:
    from tasks.student.portrait3d import Portrait3D
    from tasks.student.user_portrait import Portrait

TURNTABLE = "turntable.mp4"


def build_edit_tab(shelf: Shelf, settings: Settings, page: gr.Blocks) -> None:
    """Lay the tab out and connect it."""
    options = shelf.options()
    with gr.Row(elem_classes="tab"):
        with gr.Column(scale=5, min_width=320, elem_classes="inputs"):
            student = gr.Dropdown(options, value=options[0][1], label="Student", elem_id="edit-student", render=False)
            inputs = build_inputs(settings, "edit", "Edit", [student])
        with gr.Column(scale=8, min_width=480):
            with gr.Row(elem_classes="stage"):
                with gr.Column(scale=3, min_width=280):
                    view = gr.HTML(elem_id="view")
                with gr.Column(scale=1, min_width=120):
                    still = gr.HTML(elem_id="still")
                    depth = gr.HTML(elem_id="depth")
            yaw, pitch = turn_sliders("edit")
            with gr.Row(elem_classes="below"):
                facts = gr.HTML(elem_id="facts")
                film = gr.Button("Make a turntable video", elem_id="film", size="sm", scale=0, min_width=190)
            turntable = gr.HTML(elem_id="turntable")
    head = gr.State(None)

    def edit(*asked: Any) -> tuple[Any, ...]:
        return edit_portrait(shelf, *asked)

    asked = [student, *inputs.all, yaw, pitch]
    shown = [head, view, depth, still, facts, turntable, inputs.problem]
    inputs.when_changed(edit, asked, shown)
    student.input(edit, asked, shown, show_progress_on=view, api_visibility="private")
    for slider in (yaw, pitch):
        slider.input(turn_head, [head, yaw, pitch], [view, depth], trigger_mode="always_last", queue=False, **QUIET)
    film.click(film_head, head, [turntable, inputs.problem], show_progress_on=turntable, api_visibility="private")
    page.load(edit, asked, shown, **QUIET)
    page.load(lambda: gr.Dropdown(shelf.options()), None, student, **QUIET)


def edit_portrait(
    shelf: Shelf,
    student: str,
    picture: np.ndarray | None,
    way: str,
    text: str,
    reference: np.ndarray | None,
    yaw_deg: float,
    pitch_deg: float,
) -> tuple[Any, ...]:
    """Return the tab's contents for an edit; for a mistake, only the message.

    Seconds are from portrait to picture: alignment, triplane and one view, without loading a student.
    """
    try:
        prompt, example = read_wish(way, text, reference)
        if picture is None:
            raise UserError("there is no portrait yet", expected="pick one, or drop one of your own")
        editor = shelf.open(student)
        started = time.perf_counter()
        head = editor.edit(picture, prompt, reference=example)
        edited = np.asarray(head.own_view())
        seconds = time.perf_counter() - started
        notes = tell_notes(editor, prompt)
    except UserError as error:
        return *[gr.skip()] * 6, figures.problem(error)
    rendering = time.perf_counter()
    view, depth = turn_head(head, yaw_deg, pitch_deg)
    rendering = time.perf_counter() - rendering
    detects = editor.companions.landmarks is not None
    told = tell(head.portrait, detects, seconds, head.seconds, rendering)
    still = figures.figure(head.portrait.rgb, "portrait") + figures.figure(edited, "edited portrait")
    told = " ".join([told, *notes])
    return head, view, depth, still, figures.note(told), "", ""


def turn_head(head: "Portrait3D | None", yaw_deg: float, pitch_deg: float) -> tuple[Any, Any]:
    """Render the head and its depth from another side, without a new edit."""
    if head is None:
        return gr.skip(), gr.skip()
    rgb, depth = head.see(math.radians(yaw_deg), math.radians(pitch_deg))
    return figures.figure(rgb, "the edited head, from any side"), figures.figure(colour_depth(depth), "depth")


def film_head(head: "Portrait3D | None") -> tuple[Any, str]:
    """Return the turntable as a video to play and download. Its file is in the page's own folder while it is made."""
    if head is None:
        return gr.skip(), figures.problem(UserError("there is no edited head yet", expected="edit a portrait first"))
    with tempfile.TemporaryDirectory() as folder:
        video = head.save_video(Path(folder) / TURNTABLE).read_bytes()
    return figures.video(video, TURNTABLE), ""


def tell(portrait: "Portrait", detects: bool, seconds: float, triplane: float, view: float) -> str:
    """Describe the times, and the alignment of the portrait."""
    return (
        f"Portrait to picture {seconds:.2f} s, of which the triplane {triplane:.2f} s, "
        f"once for a portrait and prompt; each view {view:.2f} s. {tell_alignment(portrait, detects)}"
    )
