"""Contents of `stillroom serve`, and the address it listens on."""

import socket
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.workspace import Workspace
from flows.page import figures
from flows.page.serving import prepare
from flows.page.shelf import Shelf
from tasks.student.user_portrait import read_picture
from tests.worlds import page_world, pupil


def test_what_cannot_be_served_is_said_and_an_open_door_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no student and no dataset"):
        prepare("127.0.0.1", None, Workspace.open())
    pupil.store_student(tmp_path)
    with pytest.raises(UserError, match="there is no host"):
        prepare("999.0.0.1", None, Workspace.open())
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen on"):
        prepare("127.0.0.1", taken.getsockname()[1], Workspace.open())
    document = prepare("127.0.0.1", None, Workspace.open())
    assert (document["students"], document["datasets"], document["url"][:17]) == (1, 0, "http://127.0.0.1:")
    assert caplog.text == ""
    assert prepare("0.0.0.0", None, Workspace.open())["url"].startswith("http://0.0.0.0:")
    assert "there is no password" in caplog.text


def test_a_picture_that_is_not_read_is_shown_with_the_next_step() -> None:
    with pytest.raises(UserError) as raised:
        read_picture(b"\0\0\0\x18ftypheic" + bytes(20), Settings())
    assert "HEIC is not read" in figures.problem(raised.value)
    assert "heif-convert" in figures.problem(raised.value)


def test_a_style_that_a_student_was_adapted_to_is_a_choice_below_its_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    base = pupil.store_student(tmp_path)
    page_world.store_adapted(tmp_path, base.digest, "porcelain-doll")
    shelf = Shelf(Workspace.open())
    plain, adapted = shelf.choices()
    assert adapted.label.startswith("adapted to porcelain-doll")
    students = [shelf.open(choice.key) for choice in (plain, adapted)]
    first, second = (student.edit(pupil.aligned_portrait(), "make it shine").triplane for student in students)
    assert not first.equal(second)
    assert shelf.open(adapted.key) is students[1]
