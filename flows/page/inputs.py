"""Inputs of a tab: the portrait and the requested change. The tab defines the reaction to a change of either."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from flows.page import examples, figures
from tasks.photographs.drawing import draw_photograph
from tasks.sources.cropping import cut
from tasks.sources.photographs import HEADS_ONLY
from tasks.student.companions import NO_DETECTOR
from tasks.student.user_portrait import find_crops, read_picture

if TYPE_CHECKING:
    from tasks.student.api import Student
    from tasks.student.user_portrait import Portrait

IN_WORDS, BY_PICTURE = "In words", "By a picture"
MAX_PROMPT = 300  # characters
FIRST_PROMPT = 1  # position among the profile's prompts; one that changes much

MAX_YAW_DEG, MAX_PITCH_DEG = 35, 20  # to each side; students are trained on portraits, not on the back of a head
FIRST_YAW_DEG = 20
FACE_PX = 512  # side of a face that was chosen among several
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}  # for quick handlers

Listener = Callable[..., Any]


@dataclass(frozen=True)
class Inputs:
    """The components of the inputs, and the pictures behind them: (H, W, 3) uint8, as they came in."""

    portrait: gr.State
    way: gr.Radio
    text: gr.Textbox
    reference: gr.State
    chips: gr.Dataset
    go: gr.Button
    problem: gr.HTML

    @property
    def all(self) -> list[Any]:
        """Return the inputs in the order of `read_wish`, the portrait first."""
        return [self.portrait, self.way, self.text, self.reference]

    def when_changed(self, act: Listener, inputs: list[Any], outputs: list[Any]) -> None:
        """Call `act` on another portrait or reference, on a prompt entered or picked, and on the button."""
        gr.on(
            [self.portrait.change, self.reference.change, self.text.submit, self.go.click],
            act,
            inputs,
            outputs,
            trigger_mode="always_last",
            **QUIET,
        )
        words = self.chips.click(lambda row: (row[0], IN_WORDS), self.chips, [self.text, self.way], **QUIET)
        words.then(act, inputs, outputs, **QUIET)


def build_inputs(settings: Settings, name: str, action: str, others: Sequence[gr.components.Component] = ()) -> Inputs:
    """Lay the inputs out where they are called.

    name: of the tab, in the ids.  action: on the button.  others: components that were not rendered yet, above it.
    """
    size, fit = settings.align.size, examples.fit(settings)
    gr.HTML("<h2><i>1</i>A portrait</h2>")
    people = examples.portraits() if fit else []
    portrait = gr.State(people[0] if people else None)
    picked = _gallery(people, f"{name}-portraits") if people else None
    dropped = _drop(f"{name}-portrait", "Or drop a picture of yours here, or click to choose one")
    photograph, seen = gr.State(None), gr.HTML(elem_id=f"{name}-seen")
    face = gr.Radio([], label="Whose portrait?", visible=False, elem_id=f"{name}-face")
    gr.HTML("<h2><i>2</i>What to change</h2>")
    way = gr.Radio([IN_WORDS, BY_PICTURE], value=IN_WORDS, show_label=False, container=False, elem_id=f"{name}-way")
    prompts = examples.prompts(settings)
    with gr.Group(visible=True, elem_classes="bare") as words:
        text = gr.Textbox(
            next(iter(prompts[FIRST_PROMPT:]), ""),
            placeholder="turn her into a bronze statue",
            max_length=MAX_PROMPT,
            show_label=False,
            container=False,
            elem_id=f"{name}-prompt",
            elem_classes="prompt",
        )
        chips = gr.Dataset(
            components=[text],
            samples=[[prompt] for prompt in prompts],
            show_label=False,
            elem_id=f"{name}-chips",
            elem_classes="chips",
        )
    with gr.Group(visible=False, elem_classes="bare") as pictures:
        styled = examples.references(size) if fit else []
        reference = gr.State(None)
        shown = _gallery(styled, f"{name}-references") if styled else None
        handed = _drop(f"{name}-reference", "Or drop a picture that shows the style, or click")
    for other in others:
        other.render()
    go = gr.Button(action, variant="primary", elem_id=f"{name}-go")
    problem = gr.HTML(elem_id=f"{name}-problem")

    read = _reader(settings)
    for drop, state, gallery in ((dropped, portrait, picked), (handed, reference, shown)):
        if drop is dropped:
            drop.upload(_photograph_reader(settings), drop, [state, drop, problem, photograph, seen, face], **QUIET)
        else:
            drop.upload(read, drop, [state, drop, problem], **QUIET)
        if gallery is not None:
            pick = _picker(people if gallery is picked else styled)
            selected = gallery.select(pick, None, [state, problem], **QUIET)
            if gallery is picked:
                selected.then(forget_faces, None, [photograph, seen, face], **QUIET)
    face.input(choose_face, [photograph, face], [portrait, seen], **QUIET)
    way.change(
        lambda chosen: (gr.Group(visible=chosen == IN_WORDS), gr.Group(visible=chosen == BY_PICTURE)),
        way,
        [words, pictures],
        **QUIET,
    )
    return Inputs(portrait, way, text, reference, chips, go, problem)


def show_faces(rgb: np.ndarray) -> tuple[np.ndarray, str, Any]:
    """Draw the faces of a dropped picture (H, W, 3) uint8, and let one be chosen where there are several."""
    crops = find_crops(rgb)
    if not crops:
        return rgb, figures.note("No face was found in it."), gr.Radio(visible=False)
    numbers = [f"Face {number}" for number in range(1, len(crops) + 1)]
    choice = gr.Radio(numbers, value=numbers[0], visible=len(crops) > 1)
    return rgb, _draw_faces(rgb, crops, 0), choice


def choose_face(rgb: np.ndarray, chosen: str) -> tuple[np.ndarray, str]:
    """Cut the chosen face out of a photograph (H, W, 3) uint8: it takes the photograph's place."""
    number, crops = int(chosen.split()[-1]) - 1, find_crops(rgb)
    return cut(rgb, crops[number], FACE_PX), _draw_faces(rgb, crops, number)


def forget_faces() -> tuple[None, str, Any]:
    """Clear the faces of an earlier picture."""
    return None, "", gr.Radio(visible=False)


def _draw_faces(rgb: np.ndarray, crops: list[np.ndarray], chosen: int) -> str:
    drawn = draw_photograph(rgb, [(crop, number == chosen) for number, crop in enumerate(crops)])
    told = "One face was found" if len(crops) == 1 else f"{len(crops)} faces were found; green: the one to edit"
    return figures.figure(drawn, told, "seen")


def read_wish(way: str, text: str, reference: np.ndarray | None) -> tuple[str | None, np.ndarray | None]:
    """Return prompt and reference for `Student.edit`. Raises UserError where both are missing."""
    if way == BY_PICTURE:
        if reference is None:
            raise UserError("there is no picture of the style yet", expected="pick one, or drop one of your own")
        return None, reference
    if len(text) > MAX_PROMPT:
        raise UserError("the prompt is too long", expected=f"{MAX_PROMPT} characters at most")
    return text, None


def tell_notes(editor: "Student", prompt: str | None) -> list[str]:
    """Return sentences about words that the text encoder does not read or know."""
    return [f"Note: {note}." for note in editor.notes(" ".join(prompt.split()))] if prompt is not None else []


def tell_alignment(portrait: "Portrait", detects: bool) -> str:
    """Describe how a portrait was aligned, and whether it is a photograph that the networks do not know.

    detects: whether there is a face detector.
    """
    strange = f" {HEADS_ONLY[0].upper()}{HEADS_ONLY[1:]}." if portrait.strange else ""
    return f"{_tell_cut(portrait, detects)}{strange}"


def _tell_cut(portrait: "Portrait", detects: bool) -> str:
    if not detects:
        return f"{NO_DETECTOR}."
    if portrait.camera_source == "assumed_frontal":
        return "No face was found: the picture counts as an aligned, frontal portrait."
    if portrait.faces > 1:
        return f"{portrait.faces} faces were found: the largest was cut out and aligned."
    return "The portrait was cut out and aligned first." if portrait.cropped else "The portrait was aligned already."


def turn_sliders(name: str) -> tuple[gr.Slider, gr.Slider]:
    """Yaw and pitch, in degrees."""
    with gr.Row(elem_classes="turn"):
        sliders = [
            gr.Slider(-limit, limit, first, step=1, label=label, elem_id=f"{name}-{angle}", buttons=[])
            for angle, label, limit, first in (
                ("yaw", "Turn left or right", MAX_YAW_DEG, FIRST_YAW_DEG),
                ("pitch", "Look from below or above", MAX_PITCH_DEG, 0),
            )
        ]
    return sliders[0], sliders[1]


def _gallery(pictures: list[np.ndarray], name: str) -> gr.Gallery:
    return gr.Gallery(
        list(pictures),
        columns=8,
        allow_preview=False,
        interactive=False,
        show_label=False,
        container=False,
        height="auto",
        object_fit="cover",
        buttons=[],
        format="png",
        elem_id=name,
        elem_classes="thumbs",
    )


def _drop(name: str, label: str) -> gr.File:
    return gr.File(label=label, type="binary", height=48, elem_id=name, elem_classes="drop")


def _reader(settings: Settings) -> Listener:
    """Return a handler that reads a dropped file. A bad file is reported, and the earlier choice stays."""

    def read(data: bytes) -> tuple[Any, None, str]:
        try:
            return read_picture(data, settings), None, ""
        except UserError as error:
            return gr.skip(), None, figures.problem(error)

    return read


def _photograph_reader(settings: Settings) -> Listener:
    """Return a handler that also shows the faces of a dropped file."""
    read = _reader(settings)

    def read_photograph(data: bytes) -> tuple[Any, ...]:
        rgb, dropped, problem = read(data)
        shown = show_faces(rgb) if isinstance(rgb, np.ndarray) else [gr.skip()] * 3
        return rgb, dropped, problem, *shown

    return read_photograph


def _picker(pictures: list[np.ndarray]) -> Listener:
    """Return a handler that takes the clicked example."""

    def pick(event: gr.SelectData) -> tuple[np.ndarray, str]:
        return pictures[int(event.index)], ""

    return pick
