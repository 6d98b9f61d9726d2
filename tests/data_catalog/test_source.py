"""Changes of code that count, and those that do not."""

import shutil
from pathlib import Path

import pytest

from data_catalog.config.places import PROJECT
from data_catalog.plan.reasons import changed_definitions
from data_catalog.plan.source import PACKAGES, WITHOUT_EFFECT, SourceReader

TASK = '''"""Edit portraits."""

from __future__ import annotations

import json
import math

from models import sampler


def run(work):
    """Do it."""
    # A comment.
    from models.late import late

    return sampler.sample(work, 2) + late(json, math)


class Pair:
    """Two."""

    first: int = 1
    second: int = 2

    def swap(self):
        return Pair(self.second, self.first)
'''
SAME = '''"""Another docstring."""
import math
import json
from models import sampler
class Pair:
    first: int = 1
    second: int = 2
    def swap(self):
        "Swap."
        return Pair(
            self.second,
            self.first,
        )
def run(work):
    from models.late import late
    return (sampler.sample(work, 2)
            + late(json, math))
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for package in ("tasks", "models"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "tasks" / "edit.py").write_text(TASK)
    (tmp_path / "models" / "sampler.py").write_text(
        "from models.noise import noise\n\n\ndef sample(w, n): return noise(n)\n"
    )
    (tmp_path / "models" / "noise.py").write_text("def noise(n):\n    return n + 1\n")
    (tmp_path / "models" / "late.py").write_text("def late(*a):\n    return 0\n")
    (tmp_path / "models" / "other.py").write_text("def other():\n    return 0\n")
    return tmp_path


def digest(project: Path) -> str:
    return SourceReader(project).digest(["tasks.edit"]).digest


def test_comments_docstrings_formatting_and_order_change_nothing(project: Path) -> None:
    before = digest(project)
    (project / "tasks" / "edit.py").write_text(SAME)
    assert digest(project) == before


def test_a_changed_helper_two_imports_away_is_named(project: Path) -> None:
    before = SourceReader(project).digest(["tasks.edit"])
    (project / "models" / "noise.py").write_text("def noise(n):\n    return n + 2\n")
    after = SourceReader(project).digest(["tasks.edit"])
    assert before.digest != after.digest
    assert changed_definitions(before.definitions, after.definitions) == ["models.noise.noise"]


@pytest.mark.parametrize(
    "change", [("2)", "3)"), ("self.second, self.first", "self.first, self.second"), ("= 1", "= 7")]
)
def test_a_changed_number_order_or_field_counts(project: Path, change: tuple[str, str]) -> None:
    before = digest(project)
    assert change[0] in TASK
    (project / "tasks" / "edit.py").write_text(TASK.replace(*change))
    assert digest(project) != before


def test_an_import_inside_a_function_is_followed_and_a_stranger_is_not(project: Path) -> None:
    before = digest(project)
    (project / "models" / "other.py").write_text("def other():\n    return 1\n")
    assert digest(project) == before
    (project / "models" / "late.py").write_text("def late(*a):\n    return 1\n")
    assert digest(project) != before


def test_a_relative_import_is_followed(project: Path) -> None:
    (project / "models" / "sampler.py").write_text("from .noise import noise\n\n\ndef sample(w, n): return noise(n)\n")
    before = digest(project)
    (project / "models" / "noise.py").write_text("def noise(n):\n    return n - 2\n")
    assert digest(project) != before


def test_remembered_analyses_give_the_same_digest(project: Path) -> None:
    memory = project / "analyses.json"
    first = SourceReader(project, memory)
    before = first.digest(["tasks.edit"])
    first.save()
    assert SourceReader(project, memory).digest(["tasks.edit"]) == before
    memory.write_text("{}")
    assert SourceReader(project, memory).digest(["tasks.edit"]) == before


def test_the_digest_does_not_depend_on_the_path(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "tasks", tmp_path / "b" / "tasks")
    shutil.copytree(project / "models", tmp_path / "b" / "models")
    assert digest(tmp_path / "b") == digest(project)


def test_every_module_without_effect_exists_and_has_a_reason() -> None:
    for module, reason in WITHOUT_EFFECT.items():
        assert module.partition(".")[0] in PACKAGES
        assert PROJECT.joinpath(*module.split(".")).with_suffix(".py").is_file()
        assert reason
