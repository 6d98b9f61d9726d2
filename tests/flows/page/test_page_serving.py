"""Contents of `stillroom serve`, and the address it listens on."""

import socket
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.products.names import give_name
from data_catalog.workspace import Workspace
from flows.page import figures
from flows.page.answers import answered
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
    assert shelf.prompts(adapted.key) == {"porcelain-doll": "porcelain doll", "zombie": "turn him into a zombie"}


def test_the_page_starts_with_the_student_that_is_named_as_for_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    old, new = (pupil.store_student(tmp_path, seed).digest for seed in (1, 0))
    give_name(tmp_path, "champion", old)
    folder = tmp_path / "my+student"
    pupil.student().save_pretrained(folder)
    for name, first in ((None, new), ("champion", old), (old[:6], old), ("latest", new), (str(folder), str(folder))):
        shelf = Shelf(Workspace.open(), name)
        assert shelf.choices()[0].student == first
        assert prepare("127.0.0.1", None, Workspace.open(), name)["student"] == first
        assert shelf.open(shelf.choices()[0].key).origin == first
    assert Shelf(Workspace.open(), "champion").choices()[0].label.startswith(f"champion {old[:8]}")
    (tmp_path / "empty").mkdir()
    for name, said in (("nobody", "there is no student 'nobody'"), (str(tmp_path / "empty"), "no student here")):
        with pytest.raises(UserError, match=said):
            prepare("127.0.0.1", None, Workspace.open(), name)


def test_a_student_that_is_not_listed_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    pupil.store_student(tmp_path / "data")
    pupil.student().save_pretrained(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="no longer there"):
        Shelf(Workspace.open()).open(str(tmp_path / "elsewhere"))


def test_a_bug_is_said_on_the_page_and_its_traceback_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*given: object) -> None:
        raise MemoryError("all of it")

    left, shown = answered(broken, ("as before",))(1, 2)
    assert left == "as before"
    assert "The server could not do this" in shown
    assert "all of it" not in shown
    assert "MemoryError: all of it" in caplog.text
