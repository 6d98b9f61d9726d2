"""A rehearsal goes through the real stages, and says what is not as it should be."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.samples.encoding import encode_png
from data_catalog.workspace import Workspace
from flows.care import rehearsal
from flows.care.rehearsal import rehearse, small, write_pictures
from flows.run.usage import UsageWatch
from models.editing import editor
from models.editing.editor import Editor
from models.zoo import zoo
from models.zoo.random_weights import draw
from tasks.sources.opening import open_source
from tasks.stage_checks import CHECKS, check_stage, taught_fields
from tasks.stages import STAGES
from tasks.tables.faces import FACES, Face
from tests.worlds.chain import SETTINGS, Chain, shared_chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return shared_chain(tmp_path_factory.getbasetemp())


def first(chain: Chain, stage: str) -> Path:
    return next(made.folder for key, made in sorted(chain.made.items()) if made.partition.stage == stage)


def test_every_stage_is_looked_at() -> None:
    assert list(CHECKS) == [stage.name for stage in STAGES]


@pytest.mark.parametrize("stage", ["align", "score", "teach", "dataset"])
def test_what_a_stage_makes_passes(chain: Chain, stage: str) -> None:
    finding = check_stage(first(chain, stage), stage, SETTINGS)
    assert finding.made
    assert [each for each in finding.problems if not each.startswith("splits")] == []


def test_a_sample_that_could_not_be_made_is_a_problem(chain: Chain) -> None:
    (problem,) = check_stage(first(chain, "edit"), "edit", SETTINGS).problems
    assert problem.endswith("editor: ValueError")


def test_a_picture_of_the_wrong_size_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "aligned").mkdir()
    (tmp_path / "aligned" / "p0.png").write_bytes(encode_png(np.zeros((32, 64, 3), np.uint8)))
    FACES.write(tmp_path, [Face(portrait_id="p0", split="train", camera=[0.0] * 24, camera_source="given")])
    problems = check_stage(tmp_path, "align", SETTINGS).problems
    assert problems == ["aligned picture: (32, 64, 3) instead of (64, 64, 3)", "camera: 24 instead of 25"]


def test_fields_of_the_papers_size_follow_from_its_networks() -> None:
    fields = taught_fields(load_settings("paper"))
    assert fields["triplane_q8.npy"] == "96x256x256 uint8"
    assert fields["triplane_q8_tiles.npy"] == "2x96x8x8 float32"
    assert fields["depths.npy"] == "9x128x128 float32"
    assert fields["view_07.jpg"] == "512x512x3 uint8"


@pytest.mark.parametrize("profile", ["demo", "paper"])
def test_a_rehearsal_is_small_work_with_the_profiles_own_sizes(profile: str, tmp_path: Path) -> None:
    settings = load_settings(profile)
    less = load_settings(profile, small(settings, tmp_path))
    assert (less.portraits.count, less.edit.steps, less.distill.iterations, less.run.device) == (2, 1, 2, "cpu")
    assert (less.world, less.align.size, less.teach.triplane) == (
        settings.world,
        settings.align.size,
        settings.teach.triplane,
    )
    write_pictures(tmp_path / "portraits.zip", 64)
    with zipfile.ZipFile(less.portraits.source) as archive:
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
    assert sorted(labels) == list(open_source(less.portraits).names)
    assert all(len(label) == 25 for label in labels.values())


def test_random_weights_are_for_networks_that_are_not_shipped() -> None:
    with pytest.raises(UserError, match="come with the project"):
        rehearse(Workspace.open(), random_weights=True)


def test_usage_is_that_of_the_work_inside() -> None:
    with UsageWatch() as idle:
        pass
    with UsageWatch() as busy:
        held = np.ones(30_000_000)  # 240 MB
        sum(range(3_000_000))
    assert busy.peak_bytes > idle.peak_bytes + 150e6
    assert busy.cpu_seconds > idle.cpu_seconds
    assert held.sum() == 30_000_000


def test_drawn_weights_keep_the_variance_whatever_their_shape() -> None:
    shapes = {"a.weight": (640, 1280, 3, 3), "b.weight": (96, 3, 7, 7), "norm.weight": (64,), "a.bias": (640,)}
    state = dict(draw(shapes, torch.Generator().manual_seed(0), torch.float16))
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes
    for key in ("a.weight", "b.weight"):
        rows = state[key].flatten(1).float()
        assert float(rows.square().sum(1).mean()) == pytest.approx(1.0, rel=0.05)
        assert int(torch.linalg.matrix_rank(rows[:90, :147])) == 90  # no row repeats others
    assert state["norm.weight"].eq(1).all()
    assert state["a.bias"].eq(0).all()


@pytest.mark.parametrize("halves", [True, False])
def test_an_editor_too_large_for_a_graph_computes_in_half_precision_where_the_processor_does(
    halves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, rgb = zoo.ROOT / "models/weights/embedded/editor", np.full((1, 64, 64, 3), 90, np.uint8)
    exact = Editor.load(folder).edit(rgb, ["make the hair red"], [5], 2, 2.0, 1.2)
    monkeypatch.setattr(editor, "fits_graph", lambda unet: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": halves})
    plain = Editor.load(folder)
    assert plain.unet.dtype == (torch.bfloat16 if halves else torch.float32)
    difference = np.abs(plain.edit(rgb, ["make the hair red"], [5], 2, 2.0, 1.2).astype(int) - exact)
    assert difference.mean() < (6 if halves else 0.1)


def test_a_rehearsal_leaves_the_environment_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", "mine")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = dict(os.environ)
    with rehearsal._environment(tmp_path, random_weights=True):
        assert os.environ["STILLROOM_DATA"] == str(tmp_path / "data")
        os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///gone"  # as MLflow does
    assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow and pandas warn of each other while a student is registered
def test_two_portraits_pass_through_every_stage() -> None:
    document = rehearse(Workspace.open(), random_weights=False)
    assert document["ok"], document
    names = [row["stage"] for row in document["stages"]]
    assert [name for name in names if name in CHECKS] == list(CHECKS)
    assert {"snapshot", "register", "report", "verify"} <= set(names)
