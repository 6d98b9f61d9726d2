"""Paths and machines of users: whatever the system refuses is one message, and no home is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.config.places import PROJECT
from tests.worlds import commands


def stillroom(*arguments: str, cwd: Path = PROJECT, **given: str) -> "subprocess.CompletedProcess[str]":
    """Run the real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=cwd,
        env={**commands.environment(**given), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("command", [["build"], ["plan"], ["verify"], ["distill"]])
def test_a_file_for_the_data_root_is_one_message(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "file"
    file.write_text("a file")
    ended = stillroom(*command, STILLROOM_DATA=str(file))
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 1, ended.stdout
    assert ended.stderr.startswith("error: "), ended.stderr
    assert str(file) in ended.stderr
    assert "hint" in ended.stderr
    assert file.read_text() == "a file"


def test_a_name_that_is_too_long_is_one_message(tmp_path: Path) -> None:
    ended = stillroom("build", STILLROOM_DATA=str(tmp_path / ("n" * 300)))
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "file name too long" in ended.stderr


def test_a_removed_current_folder_is_one_message(tmp_path: Path) -> None:
    script = "import os, sys, shutil; shutil.rmtree(os.getcwd()); from flows.cli import main; main(['plan'])"
    (tmp_path / "here").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path / "here",
        env={**os.environ, "PYTHONPATH": str(PROJECT), "STILLROOM_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: the current folder was removed\n"), ended.stderr
    assert "cd to a folder that exists" in ended.stderr


BAD_PATH = """
import os
from pathlib import Path
from flows.cli import main
from flows.cli.commands import app

@app.command()
def put(where: Path) -> None:
    where.mkdir(parents=True)

main(["put", {where!r}])
"""


@pytest.mark.parametrize("kind", ["file", "below a file", "loop"])
def test_a_command_says_what_is_wrong_with_a_path(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    where = {"file": "file", "below a file": "file/deep", "loop": "loop/x"}[kind]
    script = BAD_PATH.format(where=str(tmp_path / where))
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: a path cannot be used: ")
    assert str(tmp_path / where.partition("/")[0]) in ended.stderr
    assert "hint" in ended.stderr


PREFECT = """
import os, sys
from pathlib import Path
from flows.run import engine, server

os.environ.update(server.without_server(Path(sys.argv[1])))
engine.load_flow("flows.build_dataset:build_dataset")
import prefect.settings
print(prefect.settings.PREFECT_HOME.value())
"""


@pytest.mark.parametrize("home", ["broken profile", "none", "none, and no name", "of another user"])
def test_a_build_imports_prefect_whatever_the_home_is(tmp_path: Path, home: str) -> None:
    place, before = tmp_path / "home", []
    (place / ".prefect").mkdir(parents=True)
    (place / ".prefect" / "profiles.toml").write_text("broken = [")
    given = commands.environment(HOME=str(place), PREFECT_PROFILES_PATH=str(place / ".prefect" / "profiles.toml"))
    if home != "broken profile":
        del given["PREFECT_PROFILES_PATH"]
    if home.startswith("none"):
        del given["HOME"]
    if home in ("none, and no name", "of another user"):
        before = ["unshare", "-U", "--map-user=54321"]
        if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
            pytest.skip("this machine lets nobody be a user without a name")
    if home == "of another user":
        (place / ".prefect").chmod(0)
    try:
        ended = subprocess.run(
            [*before, sys.executable, "-c", PREFECT, str(tmp_path / "data")],
            cwd=PROJECT,
            env=given,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        (place / ".prefect").chmod(0o755)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.strip() == str(tmp_path / "data" / "prefect")
    assert "Warning" not in ended.stderr


def test_settings_that_prefect_cannot_read_are_one_message(tmp_path: Path) -> None:
    (tmp_path / "prefect.toml").write_text("broken = [")
    script = "from flows.mistakes import saying_mistakes\nwith saying_mistakes():\n" + "".join(
        f"    {line}\n" for line in PREFECT.strip().splitlines()
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "data")],
        cwd=tmp_path,
        env={**commands.environment(), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 1
    assert "error: Prefect cannot read its settings" in ended.stderr, ended.stderr[-1000:]
    assert "prefect.toml" in ended.stderr


def test_a_device_that_torch_does_not_see_is_refused_before_work(tmp_path: Path) -> None:
    ended = stillroom("build", "--set", "run.device=cuda:99", STILLROOM_DATA=str(tmp_path / "data"))
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "error: run.device: cuda:99 cannot be used" in ended.stderr
    assert "--set run.device=cpu" in ended.stderr
    assert not (tmp_path / "data" / "store").exists()
    planned = stillroom("plan", "--set", "run.device=cuda:99", STILLROOM_DATA=str(tmp_path / "data"))
    assert planned.returncode == 0, planned.stderr
