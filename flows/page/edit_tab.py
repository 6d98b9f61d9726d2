"""First tab: edit a portrait, turn it, save its pictures, its film and its surface."""

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from data_catalog.config.settings import Settings
from flows.page import figures
from flows.page.answers import answered, unchanged
from flows.page.inputs import (
    NO_PORTRAIT,
    QUIET,
    build_inputs,
    read_wish,
    tell_alignment,
    tell_notes,
    turn_sliders,
    warn_of,
)
from flows.page.saving import BUTTONS, save_file
from flows.page.shelf import Shelf
from tasks.pictures.inline import colour_depth

if TYPE_CHECKING:
    from tasks.student.portrait3d import Portrait3D
    from tasks.student.user_portrait import Portrait

SAVE = "() => document.querySelector('#edit-saved a.save')?.click()"


def build_edit_tab(shelf: Shelf, settings: Settings, page: gr.Blocks) -> None:
    """Lay the tab out and connect it."""
    options = shelf.options()
    with gr.Row(elem_classes="tab"):
        with gr.Column(scale=5, min_width=280, elem_classes="inputs"):
            student = gr.Dropdown(options, value=options[0][1], label="Student", elem_id="edit-student", render=False)
            inputs = build_inputs(shelf, settings, "edit", "Edit", [student])
        with gr.Column(scale=8, min_width=320, elem_classes="outcome"):
            warned = gr.HTML(elem_id="edit-warned")
            with gr.Row(elem_classes="stage"):
                with gr.Column(scale=3, min_width=200):
                    view = gr.HTML(elem_id="view")
                    yaw, pitch = turn_sliders("edit")
                with gr.Column(scale=1, min_width=120, elem_classes="beside"):
                    still = gr.HTML(elem_id="still")
                    depth = gr.HTML(elem_id="depth")
            with gr.Row(elem_classes="save-buttons"):
                gr.HTML("<h2>Save</h2>")
                buttons = {
                    name: gr.Button(label, size="sm", scale=0, min_width=90, elem_id=f"save-{label.lower()}")
                    for name, label in BUTTONS.items()
                }
            saved = gr.HTML(elem_id="edit-saved")
            facts = gr.HTML(elem_id="facts")
    head = gr.State(None)

    asked = [student, *inputs.all, yaw, pitch]
    shown = [head, view, depth, still, facts, saved, warned, inputs.problem]
    edit = answered(partial(edit_portrait, shelf), unchanged(len(shown) - 1))
    inputs.when_changed(edit, asked, shown, view)
    student.input(edit, asked, shown, show_progress_on=view, show_progress="minimal", api_visibility="private")
    inputs.when_student_changes([student.input, page.load], [student])
    turned = [view, depth, saved]
    for slider in (yaw, pitch):
        turn = answered(turn_head, unchanged(2))
        slider.input(turn, [head, yaw, pitch], turned, trigger_mode="always_last", queue=False, **QUIET)
    for name, button in buttons.items():
        save = answered(partial(save_file, name=name), ())
        made = button.click(save, head, saved, show_progress_on=saved, api_visibility="private")
        made.then(None, None, None, js=SAVE)
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
    """Return the tab's contents for an edit. Without a portrait, nothing of an earlier one stays.

    Seconds are from portrait to picture: alignment, triplane and one view, without loading a student.
    """
    if picture is None:
        return None, figures.note(NO_PORTRAIT), *[""] * 6
    prompt, example = read_wish(way, text, reference)
    editor = shelf.open(student)
    started = time.perf_counter()
    head = editor.edit(picture, prompt, reference=example)
    edited = np.asarray(head.own_view())
    seconds = time.perf_counter() - started
    notes = tell_notes(editor, prompt)
    rendering = time.perf_counter()
    view, depth, _ = turn_head(head, yaw_deg, pitch_deg)
    rendering = time.perf_counter() - rendering
    detects = editor.companions.landmarks is not None
    told = tell(head.portrait, detects, seconds, head.seconds, rendering)
    still = figures.figure(head.portrait.rgb, "portrait") + figures.figure(edited, "edited portrait")
    told = " ".join([told, *notes])
    return head, view, depth, still, figures.note(told), "", warn_of(head.portrait, detects), ""


def turn_head(head: "Portrait3D | None", yaw_deg: float, pitch_deg: float) -> tuple[Any, Any, Any]:
    """Render the head and its depth from another side, without a new edit."""
    if head is None:
        return gr.skip(), gr.skip(), gr.skip()
    rgb, depth = head.see(math.radians(yaw_deg), math.radians(pitch_deg))
    seen = figures.figure(rgb, "the edited head, from any side"), figures.figure(colour_depth(depth), "depth")
    return *seen, gr.skip()


def tell(portrait: "Portrait", detects: bool, seconds: float, triplane: float, view: float) -> str:
    """Describe the times, and the alignment of the portrait. triplane: seconds that making it took, now or before."""
    if triplane < seconds:
        made = f"of which the triplane {triplane:.2f} s, once for a portrait and prompt"
    else:
        made = "with the triplane of an earlier edit"
    told = tell_alignment(portrait, detects)
    return f"Portrait to picture {seconds:.2f} s, {made}; each view {view:.2f} s. {told}"
