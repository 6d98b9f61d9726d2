"""Lines of plan and build about pictures that are not taken; a build that keeps none fails and publishes nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_catalog.config.places import PROJECT
from data_catalog.products.names import EXPORTS, NAMES
from data_catalog.samples.encoding import encode_png
from data_catalog.store.catalog import INDEX
from flows import baselines
from flows.ask import left_out
from flows.lab import ablate, claims
from flows.run import active
from flows.track.mlflow_database import FOLDER as MLFLOW
from models import procedural
from tasks.language.llm import UNUSABLE
from tasks.prompts import ANSWERS
from tasks.sources import walk
from tests.tasks.test_portraits import picture

STYLE = ["prompts.styles=[zombie]", "edit.steps=1", "teach.views=1", "run.workers=1", "select.min_yield=0"]
STYLE += ["align.faces=aligned"]  # the pictures are none of real faces


def stillroom(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, in the folder of the data root."""
    overrides = [text for each in (*STYLE, "select.min_clip_text=null") for text in ("--set", each)]
    command = [sys.executable, "-m", "flows.cli", arguments[0], *overrides, *arguments[1:]]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "STILLROOM_DATA": "data", "PYTHONPATH": str(PROJECT), **environment},
        cwd=root,
        check=False,
    )


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures, one of which is none."""
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encode_png(procedural.raw_photo(number).rgb))
    (tmp_path / "2.png").write_text("a page")
    return tmp_path


def test_a_build_names_its_reasons_and_where_the_lists_are(photos: Path) -> None:
    """In a folder that holds the data root, a second build finds nothing new, in a locale without UTF-8 neither."""
    (photos / "9.png").write_bytes(encode_png(picture(9)))
    (photos / os.fsdecode(b"caf\xe9.png")).write_bytes(encode_png(picture(8)))
    chosen = ("--set", "portraits.source=.", "--set", "portraits.count=4")
    plan = stillroom(photos, "plan", *chosen)
    line = "1 of 5 pictures left out: portraits.count=4; for example caf\\xe9.png"
    assert line in plan.stdout
    first = stillroom(photos, "build", "--json", *chosen)
    assert first.returncode == 0, first.stderr
    built = json.loads(first.stdout)
    assert (built["samples"], built["rejected"], built["reasons"]) == (3, 1, "1 not an image")
    assert (photos / built["rejected_list"]).is_file()
    assert built["left_out"][-1] == line
    assert "results left out: made by stillroom" in built["left_out"][0]
    assert (photos / built["left_out_list"]).read_text().endswith(f"{line}\n  caf\\xe9.png\n")
    assert f"{line}\n" in first.stderr
    assert "edited by networks that know procedural heads only" in first.stderr
    assert "3 samples, 1 sample rejected (1 not an image)" in first.stderr
    again = stillroom(photos, "build", *chosen, PYTHONUTF8="0", LC_ALL="C")
    assert again.returncode == 0, again.stderr
    assert "partitions         0 made, " in again.stdout
    assert "reasons            1 not an image\n" in again.stdout
    assert f" {line}\n" in again.stdout.partition("left out")[2]


def test_a_build_that_keeps_nothing_fails_with_the_reasons_and_publishes_nothing(photos: Path) -> None:
    for number in range(2):
        (photos / f"{number}.png").unlink()
    ended = stillroom(photos, "build", "--set", f"portraits.source={photos}")
    assert ended.returncode == 1
    assert "error: nothing is left after the stage portraits" in ended.stderr
    assert "rejected  1 not an image" in ended.stderr
    assert "example   2.png: not an image" in ended.stderr
    assert not (photos / "data" / "datasets").exists()


@pytest.mark.parametrize("command", ["plan", "build"])
def test_no_style_at_all_is_an_error_before_the_work(command: str, photos: Path) -> None:
    ended = stillroom(photos, command, "--set", f"portraits.source={photos}", "--set", "prompts.styles=[]")
    assert ended.returncode == 1
    assert "error: prompts.styles=[] leaves no style" in ended.stderr


def test_every_folder_that_a_command_makes_below_the_data_root_is_known_as_its_own() -> None:
    folders = [Path(INDEX), Path(MLFLOW), Path(ANSWERS), Path(UNUSABLE), active.FOLDER, left_out.FILE]
    folders += [Path(module.FOLDER) for module in (baselines, ablate, claims)]
    assert {NAMES, EXPORTS, *(folder.parts[0] for folder in folders)} <= walk.OWN
