"""Inputs of a tab: the portrait and the requested change. The tab defines the reaction to a change of either."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from flows.page import examples, figures
from flows.page.answers import Listener, answered, unchanged
from flows.page.doors import MAX_UPLOAD, TOO_LARGE
from flows.page.shelf import Shelf
from tasks.photographs.drawing import draw_photograph
from tasks.sources.cropping import cut
from tasks.sources.photographs import HEADS_ONLY
from tasks.student.api import read_shown
from tasks.student.companions import NO_DETECTOR
from tasks.student.user_portrait import find_crops

if TYPE_CHECKING:
    from tasks.student.api import Student
    from tasks.student.user_portrait import Portrait

IN_WORDS, BY_PICTURE = "In words", "By a picture"
MAX_PROMPT = 300  # characters
FIRST_PROMPT = 2  # place among the student's prompts, where it has so many; one that changes much
CHIPS_SHOWN = 12  # prompts; the others are on further pages

MAX_YAW_DEG, MAX_PITCH_DEG = 35, 20  # to each side; students are trained on portraits, not on the back of a head
FIRST_YAW_DEG = 20
FACE_PX = 512  # side of a face that was chosen among several
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}  # for quick handlers
NO_PORTRAIT = "There is no portrait: pick one, or drop one of your own."
NO_FACE = (
    "No face was found in this picture. Its middle square is taken as an aligned, frontal portrait, so the result may "
    "be far off: choose a picture that shows a face."
)
# Bring the result into sight where it lies below the inputs; but not away from a problem.
SHOW = (
    "() => {{ if (innerWidth < 700 && !document.querySelector('#{problem} .problem')) "
    "document.getElementById('{shows}').scrollIntoView(); }}"
)


@dataclass(frozen=True)
class Inputs:
    """The components of the inputs, and the pictures behind them: (H, W, 3) uint8, as they came in."""

    shelf: Shelf
    settings: Settings
    portrait: gr.State
    way: gr.Radio
    text: gr.Textbox
    reference: gr.State
    chips: gr.Dataset
    styled: gr.Gallery
    go: gr.Button
    problem: gr.HTML

    @property
    def all(self) -> list[Any]:
        """Return the inputs in the order of `read_wish`, the portrait first."""
        return [self.portrait, self.way, self.text, self.reference]

    def when_changed(self, act: Listener, inputs: list[Any], outputs: list[Any], shows: gr.HTML) -> None:
        """Call `act` on another portrait or reference, on a prompt entered or picked, and on the button.

        shows: where its result appears; what was entered on a narrow screen brings it into sight.
        """
        how: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": shows, "api_visibility": "private"}
        gr.on([self.portrait.change, self.reference.change], act, inputs, outputs, trigger_mode="always_last", **how)
        entered = gr.on([self.text.submit, self.go.click], act, inputs, outputs, trigger_mode="always_last", **how)
        words = self.chips.click(lambda row: (row[0], IN_WORDS), self.chips, [self.text, self.way], **QUIET)
        for done in (entered, words.then(act, inputs, outputs, **how)):
            done.then(None, None, None, js=SHOW.format(problem=self.problem.elem_id, shows=shows.elem_id))

    def when_student_changes(self, events: list[Any], students: list[gr.Dropdown]) -> None:
        """Offer the prompts and the pictures of the styles that the chosen students know."""
        offer = answered(partial(offer_styles, self.shelf, self.settings), unchanged(2))
        gr.on(events, offer, students, [self.chips, self.styled, self.problem], **QUIET)


def build_inputs(
    shelf: Shelf, settings: Settings, name: str, action: str, others: Sequence[gr.components.Component] = ()
) -> Inputs:
    """Lay the inputs out where they are called.

    name: of the tab, in the ids.  action: on the button.  others: components that were not rendered yet, above it.
    """
    gr.HTML("<h2><i>1</i>A portrait</h2>")
    people = examples.portraits() if examples.fit(settings) else []
    portrait = gr.State(people[0][0] if people else None)
    picked = _gallery(people, f"{name}-portraits", "Example portraits")
    dropped = _drop(f"{name}-portrait", "Or drop a picture of yours here, or click to choose one")
    wrong_portrait = gr.HTML(elem_id=f"{name}-portrait-problem")
    photograph, seen = gr.State(None), gr.HTML(elem_id=f"{name}-seen")
    face = gr.Radio([], label="Whose portrait?", visible=False, elem_id=f"{name}-face")
    gr.HTML("<h2><i>2</i>What to change</h2>")
    way = gr.Radio(
        [IN_WORDS, BY_PICTURE], value=IN_WORDS, label="What to change", show_label=False, container=False,
        elem_id=f"{name}-way",
    )  # fmt: skip
    prompts = shelf.prompts(shelf.options()[0][1])
    with gr.Group(visible=True, elem_classes="bare") as words:
        text = gr.Textbox(
            [*prompts.values()][:FIRST_PROMPT][-1],
            placeholder="turn her into a bronze statue",
            max_length=MAX_PROMPT,
            label="Prompt",
            show_label=False,
            container=False,
            elem_id=f"{name}-prompt",
            elem_classes="prompt",
        )
        chips = gr.Dataset(
            components=[text],
            samples=[[prompt] for prompt in prompts.values()],
            samples_per_page=CHIPS_SHOWN,
            show_label=False,
            elem_id=f"{name}-chips",
            elem_classes="chips",
        )
    with gr.Group(visible=False, elem_classes="bare") as pictures:
        reference = gr.State(None)
        styled = _gallery(_draw(settings, prompts), f"{name}-references", "Example pictures of styles")
        handed = _drop(f"{name}-reference", "Or drop a picture that shows the style, or click")
        wrong_reference, taken = gr.HTML(elem_id=f"{name}-reference-problem"), gr.HTML(elem_id=f"{name}-taken")
    for other in others:
        other.render()
    go = gr.Button(action, variant="primary", elem_id=f"{name}-go")
    problem = gr.HTML(elem_id=f"{name}-problem")

    looked = [portrait, photograph, seen, face, picked, dropped, wrong_portrait]
    none_picked = gr.update(selected_index=None)  # as a gr.Gallery, it would be one more gallery here
    without = (None, None, "", gr.update(visible=False), none_picked, None)
    dropped.upload(answered(partial(take_photograph, settings), without), dropped, looked, **QUIET)
    picked.select(_pick, picked, portrait, **QUIET).then(
        lambda: (None, "", gr.Radio(visible=False), ""), None, [photograph, seen, face, wrong_portrait], **QUIET
    )
    face.input(answered(choose_face, unchanged(2)), [photograph, face], [portrait, seen, wrong_portrait], **QUIET)
    given = [reference, taken, styled, handed, wrong_reference]
    handed.upload(answered(partial(take_reference, settings), (None, "", none_picked, None)), handed, given, **QUIET)
    styled.select(_pick, styled, reference, **QUIET).then(lambda: ("", ""), None, [taken, wrong_reference], **QUIET)
    way.change(
        lambda chosen: (gr.Group(visible=chosen == IN_WORDS), gr.Group(visible=chosen == BY_PICTURE)),
        way,
        [words, pictures],
        **QUIET,
    )
    return Inputs(shelf, settings, portrait, way, text, reference, chips, styled, go, problem)


def offer_styles(shelf: Shelf, settings: Settings, *students: str) -> tuple[Any, Any, Any]:
    """Return the chips and the pictures of the styles that the chosen students know."""
    prompts = shelf.prompts(*students)
    pictures = _draw(settings, prompts)
    chips = gr.Dataset(samples=[[prompt] for prompt in prompts.values()])
    return chips, gr.Gallery(pictures, visible=bool(pictures)), gr.skip()


def read_dropped(data: bytes, settings: Settings) -> np.ndarray:
    """Read a dropped picture as (H, W, 3) uint8. Raises UserError for one that is not taken."""
    if data.startswith(TOO_LARGE):
        raise UserError(
            f"a file of {int(data.removeprefix(TOO_LARGE)) / 1e6:.0f} MB is too large for this page",
            expected=f"{MAX_UPLOAD // 1_000_000} MB at most",
            hint="make the picture smaller, or on this machine: stillroom edit FILE --prompt TEXT",
        )
    return read_shown(data, settings)


def take_photograph(settings: Settings, data: bytes) -> tuple[Any, ...]:
    """Return a dropped portrait, with its faces drawn where there are several to choose from."""
    rgb = read_dropped(data, settings)
    crops = find_crops(rgb)
    numbers = [f"Face {number}" for number in range(1, len(crops) + 1)]
    choice = gr.Radio(numbers, value=next(iter(numbers), None), visible=len(crops) > 1)
    drawn = _draw_faces(rgb, crops, 0) if crops else figures.figure(rgb, "your picture", "seen")
    return rgb, rgb, drawn, choice, gr.Gallery(selected_index=None), None, ""


def take_reference(settings: Settings, data: bytes) -> tuple[Any, ...]:
    """Return a dropped picture of a style, and show it."""
    rgb = read_dropped(data, settings)
    return rgb, figures.figure(rgb, "your picture of the style", "seen"), gr.Gallery(selected_index=None), None, ""


def choose_face(rgb: np.ndarray, chosen: str) -> tuple[np.ndarray, str, str]:
    """Cut the chosen face out of a photograph (H, W, 3) uint8: it takes the photograph's place."""
    number, crops = int(chosen.split()[-1]) - 1, find_crops(rgb)
    return cut(rgb, crops[number], FACE_PX), _draw_faces(rgb, crops, number), ""


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
    """Describe in a sentence how a portrait was aligned.  detects: whether there is a face detector."""
    if not detects:
        return f"{NO_DETECTOR}."
    if portrait.camera_source == "assumed_frontal":
        return "The picture counts as an aligned, frontal portrait."
    if portrait.faces > 1:
        return f"{portrait.faces} faces were found: the largest was cut out and aligned."
    return "The portrait was cut out and aligned first." if portrait.cropped else "The portrait was aligned already."


def warn_of(portrait: "Portrait", detects: bool) -> str:
    """Return a warning for a picture without a face, or of a kind that the networks do not know."""
    if detects and portrait.camera_source == "assumed_frontal":
        return figures.warning(NO_FACE)
    return figures.warning(f"{HEADS_ONLY[0].upper()}{HEADS_ONLY[1:]}.") if portrait.strange else ""


def turn_sliders(name: str) -> tuple[gr.Slider, gr.Slider]:
    """Yaw and pitch, in degrees."""
    with gr.Row(elem_classes="turn"):
        sliders = [
            gr.Slider(-limit, limit, first, step=1, label=label, elem_id=f"{name}-{angle}", buttons=[])
            for angle, label, limit, first in (
                ("yaw", "Turn left or right", MAX_YAW_DEG, FIRST_YAW_DEG),
                ("pitch", "Below or above", MAX_PITCH_DEG, 0),
            )
        ]
    return sliders[0], sliders[1]


def _draw(settings: Settings, styles: Iterable[str]) -> list[examples.Example]:
    return examples.references(settings.align.size, tuple(styles)) if examples.fit(settings) else []


def _gallery(pictures: list[examples.Example], name: str, label: str) -> gr.Gallery:
    return gr.Gallery(
        list(pictures),
        columns=8,
        allow_preview=False,
        interactive=False,
        label=label,
        show_label=False,
        container=False,
        height="auto",
        object_fit="cover",
        buttons=[],
        format="png",
        visible=bool(pictures),
        elem_id=name,
        elem_classes="thumbs",
    )


def _drop(name: str, label: str) -> gr.File:
    return gr.File(label=label, type="binary", height=48, elem_id=name, elem_classes="drop")


def _pick(pictures: list[examples.Example], event: gr.SelectData) -> np.ndarray:
    """Take the clicked example."""
    return pictures[int(event.index)][0]
