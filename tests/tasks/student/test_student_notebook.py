"""A student and its results in a notebook and at the prompt: short texts, small pictures, examples that work."""

import doctest
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stillroom import Portrait3D, Student
from tasks.student.user_portrait import Portrait
from tests.worlds import pupil


def test_a_text_of_each_says_in_a_line_what_it_is(student: Student, head: Portrait3D) -> None:
    assert repr(student) == "Student(of this process, embedded world, 64 px, cpu)"
    assert repr(head.portrait) == "Portrait(64x64 px, camera pnp, aligned already)"
    assert repr(head) == f"Portrait3D(triplane 36x64x64, {head.seconds:.3f} s, of {head.portrait!r})"


def test_a_students_text_and_table_name_it_and_the_styles_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    digest = pupil.store_student(tmp_path, styles=("lost-style", "zombie")).digest
    loaded = Student.load()
    assert repr(loaded) == f"Student({digest[:16]}, embedded world, 64 px, cpu, knows lost-style, zombie)"
    assert "<td>zombie</td><td>turn him into a zombie</td>" in loaded._repr_html_()
    loaded.save_pretrained(tmp_path / "mine")
    again = Student.load(tmp_path / "mine")
    assert again.prompts == {"lost-style": "make her look lost", "zombie": "turn him into a zombie"}
    again.prompts = {"<b>": "<i>"}
    assert "<td>&lt;b&gt;</td><td>&lt;i&gt;</td>" in again._repr_html_()


def test_a_head_shows_its_edited_portrait_and_a_portrait_itself(head: Portrait3D) -> None:
    pairs = ((head._repr_png_(), head.own_view()), (head.portrait._repr_png_(), head.portrait.rgb))
    for png, shown in pairs:
        assert png is not None
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(shown))
    large = head.portrait._replace(rgb=np.random.default_rng(0).integers(0, 255, (600, 900, 3), np.uint8))
    png = large._repr_png_()
    assert png is not None
    assert (Image.open(io.BytesIO(png)).size, len(png) < 100_000) == ((192, 128), True)


def test_a_picture_that_cannot_be_drawn_is_none_and_a_line_in_the_log(
    student: Student, head: Portrait3D, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Portrait3D(student.network, head.triplane[:, :1], head.portrait, 0.0)
    assert broken._repr_png_() is None
    assert head.portrait._replace(rgb=np.zeros((0, 3)))._repr_png_() is None
    assert caplog.text.count("there is no picture of it") == 2


def test_the_examples_of_the_docstrings_give_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pupil.student().save_pretrained("my-student")
    (photo,) = pupil.write_photos(tmp_path, 1)
    photo.rename("portrait.png")
    known: dict[str, Any] = {"student": Student.load("my-student")}
    runner = doctest.DocTestRunner()
    for described in (Student, Portrait3D, Portrait):
        (example,) = doctest.DocTestFinder(recurse=False).find(described, described.__name__, globs=known)
        assert runner.run(example).attempted
    assert runner.summarize().failed == 0
    with Image.open("side.png") as side:
        assert side.size == (64, 64)
