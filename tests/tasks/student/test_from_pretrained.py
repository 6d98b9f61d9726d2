"""Names that `Student.from_pretrained` takes, and those that it refuses, at once or after some seconds."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from tasks.student.api import Student, download
from tests.worlds import commands
from tests.worlds.pupil import student


def test_a_folder_below_the_home_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student().save_pretrained(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert isinstance(Student.from_pretrained("~/mine"), Student)


@pytest.mark.parametrize("name", ["nope", "~/nope", "./a/b", "a/b/c", "", "org/", "/no/such/folder"])
def test_what_is_neither_a_folder_nor_a_name_of_the_hub_is_refused_at_once(name: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match="there is no exported student here") as caught:
        Student.from_pretrained(name)
    assert "ORG/NAME" in str(caught.value) or "stillroom export" in str(caught.value)
    assert time.monotonic() - began < 5


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"the device {device} cannot be used"):
            Student.from_pretrained(tmp_path, device=device)


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_a_hub_that_does_not_answer_is_waited_for_only_seconds(tmp_path: Path, kind: str) -> None:
    """The hub's address is read when its library is imported."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "silent" else 9
        began = time.monotonic()
        script = (
            "import time\nfrom data_catalog.config.errors import UserError\n"
            f"from tasks.student.api import {download.__name__}\nbegan = time.monotonic()\n"
            "try: download('org/name')\nexcept UserError as error: print(error, time.monotonic() - began < 20)\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script],
            cwd=PROJECT,
            env=commands.environment(HF_ENDPOINT=f"http://127.0.0.1:{port}", HF_HOME=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("the student org/name cannot be loaded from the hub")
    assert ended.stdout.strip().endswith("True"), time.monotonic() - began
