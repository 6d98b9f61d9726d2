"""Check of how docstrings open, and its list of forbidden openings."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import prose


@pytest.mark.parametrize(
    "opening",
    [
        "What a stage leaves behind.",
        "Of two vectors.",
        "One row a sample.",
        "How much an edit changes.",
        "The file that lists the styles.",
        "Everything that a run made.",
        "All of them, the newest first.",
    ],
)
def test_a_docstring_with_a_forbidden_opening_is_found_with_its_line(opening: str) -> None:
    source = f'import os\n\n\ndef leave() -> None:\n    """{opening}"""\n'
    assert [line for line, _ in prose.offenders(source)] == [5]


@pytest.mark.parametrize(
    "opening",
    [
        "Return the plan.",
        "Lock file of a partition.",
        "Whether it is held.",
        "All samples of a style.",
        "(B, 3) uint8.",
    ],
)
def test_a_verb_a_noun_and_a_shape_may_open_a_docstring(opening: str) -> None:
    assert not prose.offenders(f'class Kept:\n    """{opening}"""\n')


def test_the_check_fails_and_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "field.py").write_text('"""What a ray sees."""\n', encoding="utf-8")
    command = [sys.executable, prose.__file__]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith("models/field.py:1: What a ray sees.")
