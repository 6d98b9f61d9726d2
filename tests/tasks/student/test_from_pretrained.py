"""Names that `Student.from_pretrained` takes, and those that it refuses, at once or after some seconds."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from tasks.student.api import Student
from tasks.student.hub import download
from tests.worlds import commands
from tests.worlds.pupil import student


def test_a_folder_below_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student().save_pretrained(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert isinstance(Student.from_pretrained("~/mine"), Student)
    assert isinstance(Student.load("~/mine"), Student)


@pytest.mark.parametrize("name", ["nope", "~/nope", "./a/b", "a/b/c", "", "org/", "/no/such/folder"])
def test_what_is_neither_a_folder_nor_a_name_of_the_hub_is_refused_without_the_hub_being_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("tasks.student.hub.urlopen", lambda address, **given: asked.append(address))
    with pytest.raises(UserError, match="there is no exported student here") as caught:
        Student.from_pretrained(name)
    assert "ORG/NAME" in str(caught.value) or "stillroom export" in str(caught.value)
    assert asked == []


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"the device {device} cannot be used"):
            Student.from_pretrained(tmp_path, device=device)


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_a_hub_that_does_not_answer_is_waited_for_only_seconds(tmp_path: Path, kind: str) -> None:
    """The hub's address is read when its library is imported."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "silent" else 9
        script = (
            "import time\nfrom data_catalog.config.errors import UserError\n"
            f"from tasks.student.hub import {download.__name__}\nbegan = time.monotonic()\n"
            "try: download('org/name')\nexcept UserError as error: print(error, time.monotonic() - began < 60)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=PROJECT,
            env=commands.environment(HF_ENDPOINT=f"http://127.0.0.1:{port}", HF_HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=commands.SECONDS,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("the student org/name is not in the cache, and http://127.0.0.1:")
    assert ended.stdout.strip().endswith("True"), ended.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the hub that holds two revisions of a student, whose names to try differ."""
    cache = tmp_path_factory.mktemp("hub")
    folder = cache / "models--user--student"
    for name, commit, prompt in (("main", "a" * 40, "as a zombie"), ("v2", "b" * 40, "as a clown")):
        made = student()
        made.prompts = {"style": prompt}
        made.save_pretrained(folder / "snapshots" / commit)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / name).write_text(commit)
    return cache


@pytest.mark.parametrize(("given", "prompt"), [({}, "as a zombie"), ({"revision": "v2"}, "as a clown")])
@pytest.mark.parametrize("offline", [True, False])
def test_a_snapshot_in_the_cache_of_the_hub_is_taken_by_its_revision(
    cache: Path, given: dict[str, str], prompt: str, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline it is by HF_HUB_OFFLINE; else nothing answers at the hub's address."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    loaded = Student.from_pretrained("user/student", cache_dir=cache, token=False, **given)
    assert (loaded.origin, loaded.prompts) == ("user/student", {"style": prompt})


def test_what_the_cache_does_not_hold_is_one_message_without_the_hub_being_asked(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("tasks.student.hub.urlopen", lambda address, **given: asked.append(address))
    for name, revision in (("user/student", "v3"), ("user/other", "main")):
        with pytest.raises(UserError, match=f"{name} is not in the cache, and the hub may not be asked") as raised:
            Student.from_pretrained(name, revision=revision, cache_dir=cache, local_files_only=True)
        assert raised.value.fields == {"revision": revision, "cache": str(cache)}
    assert asked == []


@pytest.mark.parametrize("name", [None, "champion"])
def test_outside_of_a_project_the_message_names_the_data_root_and_how_to_choose_another(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STILLROOM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no student") as raised:
        Student.load(name)
    assert raised.value.fields["root"] == f"{tmp_path / 'data'}, below the current folder, is not there"
    assert str(raised.value.hint).startswith("export STILLROOM_DATA=/path/to/data")
