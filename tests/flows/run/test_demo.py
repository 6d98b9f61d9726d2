"""Beginning and end of `make setup` and `make demo`: what they take, what they are at, where to look, what to type."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from data_catalog.config.places import PROJECT
from flows.run.demo import tell_evaluation
from tests.worlds.terminal import pieces


def test_the_demo_ends_with_its_measures_its_places_and_two_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "method": "student",
        "id": 0.51234,
        "clip": 0.886,
        "three_d": 0.87,
        "lpips": None,
        "seconds_per_image": 0.024,
    }
    report, sheet = tmp_path / "report.html", tmp_path / "evaluation.png"
    tell_evaluation({"table": [row], "report": str(report), "sheet": str(sheet)})
    said = capsys.readouterr().out
    assert re.search(r"student +0\.512 +0\.886 +0\.870 +0\.024\n", said)
    assert f"{report}\n" in said
    assert f"{sheet}\n" in said
    commands = said.partition("next\n")[2].splitlines()
    assert len(commands) == 2
    portrait = re.findall(r"stillroom edit (\S+)", commands[0])[0]
    assert (PROJECT / portrait).is_file()
    assert all(len(line) <= 80 for line in said.splitlines() if str(tmp_path) not in line)


def progress_of(recipe: str, at_terminal: bool) -> tuple[int, str]:
    """Run a recipe of the Makefile behind its line of progress; returns its exit code and what is shown."""
    rule = f"--eval=shown: ; @{recipe} | $(PROGRESS)"
    reader, writer = pty.openpty() if at_terminal else os.pipe()
    ended = subprocess.run(["make", "-s", rule, "shown"], cwd=PROJECT, stdout=writer, check=False)
    os.close(writer)
    return ended.returncode, b"".join(pieces(reader)).decode()


def test_the_set_up_shows_what_pip_is_at_and_fails_with_it() -> None:
    recipe = "printf 'Collecting torch\\n  Downloading torch.whl (200 MB)\\nRequirement already: x\\n'"
    code, shown = progress_of(recipe, at_terminal=True)
    assert code == 0
    lines = [part.rstrip() for part in shown.split("\r")]
    assert lines == ["", "Collecting torch", "  Downloading torch.whl (200 MB)", "", ""]
    assert progress_of(recipe, at_terminal=False) == (0, ""), "a log gets no line of progress"
    assert progress_of("false", at_terminal=False)[0] != 0
    told = (PROJECT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"minutes and \d GB of disk", told)
