"""Third tab: two students on the same portrait and prompt, from the same side."""

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
from flows.page.shelf import Shelf

if TYPE_CHECKING:
    from tasks.student.portrait3d import Portrait3D

SIDES = ("A", "B")


def build_compare_tab(shelf: Shelf, settings: Settings, tab: gr.Tab) -> None:
    """Lay the tab out and connect it."""
    options = shelf.options()
    with gr.Row(elem_classes="tab"):
        with gr.Column(scale=5, min_width=280, elem_classes="inputs"):
            inputs = build_inputs(shelf, settings, "compare", "Compare")
        with gr.Column(scale=8, min_width=320, elem_classes="outcome"):
            with gr.Row(elem_classes="students"):
                students = [
                    gr.Dropdown(options, value=options[min(place, len(options) - 1)][1], label=f"Student {side}",
                                elem_id=f"compare-student-{side.lower()}")
                    for place, side in enumerate(SIDES)
                ]  # fmt: skip
            warned = gr.HTML(elem_id="compare-warned")
            sheet = gr.HTML(elem_id="sheet")
            yaw, pitch = turn_sliders("compare")
            facts = gr.HTML(elem_id="compare-facts")
    heads, stills = gr.State(None), gr.State(None)

    asked = [*students, *inputs.all, yaw, pitch]
    shown = [heads, stills, sheet, facts, warned, inputs.problem]
    compare = answered(partial(compare_students, shelf), unchanged(len(shown) - 1))
    inputs.when_changed(compare, asked, shown, sheet)
    for student in students:
        student.input(compare, asked, shown, show_progress_on=sheet, show_progress="minimal", api_visibility="private")
    inputs.when_student_changes([tab.select, *(student.input for student in students)], students)
    turned = [sheet, inputs.problem]
    for slider in (yaw, pitch):
        turn = answered(lambda *given: (turn_both(*given), gr.skip()), unchanged(1))
        slider.input(turn, [heads, stills, yaw, pitch], turned, trigger_mode="always_last", queue=False, **QUIET)
    tab.select(compare, asked, shown, **QUIET)
    tab.select(lambda: [gr.Dropdown(shelf.options())] * len(SIDES), None, students, **QUIET)


def compare_students(
    shelf: Shelf,
    a: str,
    b: str,
    picture: np.ndarray | None,
    way: str,
    text: str,
    reference: np.ndarray | None,
    yaw_deg: float,
    pitch_deg: float,
) -> tuple[Any, ...]:
    """Return both students' edits. Without a portrait, nothing of an earlier one stays."""
    if picture is None:
        return None, None, figures.note(NO_PORTRAIT), "", "", ""
    prompt, example = read_wish(way, text, reference)
    heads, stills, seconds = [], [], []
    for key in (a, b):
        editor = shelf.open(key)
        started = time.perf_counter()
        heads.append(editor.edit(picture, prompt, reference=example))
        stills.append(np.asarray(heads[-1].own_view()))
        seconds.append(time.perf_counter() - started)
    apart = np.abs(stills[0].astype(int) - stills[1]).mean() / 255
    told = ", ".join(f"{side} {taken:.2f} s" for side, taken in zip(SIDES, seconds, strict=True))
    told = f"Portrait to picture: {told}. The edited portraits differ by {apart:.3f} in the mean (0 to 1)."
    detects = editor.companions.landmarks is not None
    told += f" {tell_alignment(heads[0].portrait, detects)}"
    told = " ".join([told, *tell_notes(editor, prompt)])
    if a == b:
        told += " Both are the same student: choose another, or train one with stillroom distill."
    warned = warn_of(heads[0].portrait, detects)
    return heads, stills, turn_both(heads, stills, yaw_deg, pitch_deg), figures.note(told), warned, ""


def turn_both(
    heads: "list[Portrait3D] | None", stills: list[np.ndarray] | None, yaw_deg: float, pitch_deg: float
) -> Any:
    """Both heads from the same side, below the edited portraits, which do not turn."""
    if heads is None or stills is None:
        return gr.skip()
    rows = [figures.figure(heads[0].portrait.rgb, "portrait", "first")]
    rows += [figures.figure(still, f"{side}: edited portrait") for side, still in zip(SIDES, stills, strict=True)]
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    rows += [figures.figure(head.look(yaw, pitch), f"{side}, turned") for side, head in zip(SIDES, heads, strict=True)]
    return f'<div class="pairs">{"".join(rows)}</div>'
