"""Shell completion offers what there is, quickly, and no traceback where there is nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.config.places import PROJECT
from flows.cli.completion import STAGES
from tasks.stages import STAGES as DECLARED
from tests.flows.cli.test_cli import HEAVY


def complete(words: str, root: Path) -> list[str]:
    """Ask as bash does: the line so far; the last word is what is to be completed."""
    line = f"stillroom {words}"
    environment = {**os.environ, "STILLROOM_DATA": str(root), "_STILLROOM_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    script = (
        "import sys\nsys.argv[0] = 'stillroom'\nfrom flows.cli import main\n"
        "try:\n    main([])\nfinally:\n"
        f"    print('engines', [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=PROJECT, check=False, timeout=120
    )
    assert ended.stderr.strip() == "engines []"
    return ended.stdout.split()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with one partition, one dataset and one named student."""
    for folder in ("store/edit/zombie/0000/abc", "datasets/d1c0ffee"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "store/edit/zombie/0000/abc/record.json").touch()
    (tmp_path / "datasets/d1c0ffee/manifest.json").touch()
    (tmp_path / "names.json").write_text('{"champion": "12ab"}')
    return tmp_path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("buil", ["build"]),
        ("plan --profile ", ["demo", "paper"]),
        ("plan --set edit.guid", ["edit.guidance_scale=", "edit.guidance_interval="]),
        ("accept al", ["align"]),
        ("why edit/", ["edit/zombie/0000"]),
        ("adapt --profile paper por", ["porcelain-doll"]),
        ("adapt --profile no-such zom", []),
        ("distill --dataset d1", ["d1c0ffee"]),
        ("promote ch", ["champion"]),
    ],
)
def test_a_word_is_completed_without_an_engine(words: str, offered: list[str], root: Path) -> None:
    assert complete(words, root) == offered


def test_the_stages_are_those_that_are_declared() -> None:
    assert list(STAGES) == [stage.name for stage in DECLARED]
