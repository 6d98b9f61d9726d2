"""Notes of the page about a prompt, without a browser."""

from typing import Any

import numpy as np

from flows.page.compare_tab import compare_students
from flows.page.edit_tab import edit_portrait, tell
from flows.page.inputs import IN_WORDS
from tasks.student.user_portrait import Portrait
from tests.worlds import pupil


class OneStudent:
    """Shelf of a single student."""

    def __init__(self) -> None:
        self.student = pupil.student()

    def open(self, key: str) -> Any:
        return self.student


def test_a_prompt_that_is_not_known_or_cut_is_said_beside_its_edit() -> None:
    shelf: Any = OneStudent()
    for text, said in (
        ("<b>把</b>", "Note: the text encoder knows none"),
        ("make her a zombie " * 9, "Note: the prompt is cut after 24"),
    ):
        facts = edit_portrait(shelf, "a", pupil.aligned_portrait(), IN_WORDS, text, None, 0.0, 0.0)[4]
        assert said in facts
        assert "<b>" not in facts
        assert said in compare_students(shelf, "a", "b", pupil.aligned_portrait(), IN_WORDS, text, None, 0.0, 0.0)[3]
    assert "Note" not in edit_portrait(shelf, "a", pupil.aligned_portrait(), IN_WORDS, "a zombie", None, 0.0, 0.0)[4]


def test_the_triplane_of_an_earlier_edit_is_no_part_of_this_ones_seconds() -> None:
    portrait = Portrait(pupil.aligned_portrait(), np.zeros(25, np.float32), "pnp", False)
    made = tell(portrait, detects=True, seconds=0.5, triplane=0.4, view=0.1)
    kept = tell(portrait, detects=True, seconds=0.06, triplane=0.4, view=0.1)
    assert made.startswith("Portrait to picture 0.50 s, of which the triplane 0.40 s, once for")
    assert kept.startswith("Portrait to picture 0.06 s, with the triplane of an earlier edit; each view 0.10 s.")
