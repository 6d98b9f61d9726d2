"""A rehearsal goes through the real stages, and says what is not as it should be."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.encoding import encode_png
from data_catalog.errors import UserError
from data_catalog.settings import load_settings
from flows.rehearsal import rehearse, small, write_pictures
from flows.usage import UsageWatch
from tasks.sources.files import open_source
from tasks.stage_checks import CHECKS, check_stage, taught_fields
from tasks.stages import STAGES
from tests.chain import SETTINGS, Chain, shared_chain


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
    row = {"portrait_id": "p0", "status": "ok", "camera": [0.0] * 24, "camera_source": "given"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "align.parquet")
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
    with pytest.raises(UserError, match="are shipped"):
        rehearse("demo", [], random_weights=True)


def test_usage_is_that_of_the_work_inside() -> None:
    with UsageWatch() as idle:
        pass
    with UsageWatch() as busy:
        held = np.ones(30_000_000)  # 240 MB
        sum(range(3_000_000))
    assert busy.peak_bytes > idle.peak_bytes + 150e6
    assert busy.cpu_seconds > idle.cpu_seconds
    assert held.sum() == 30_000_000


@pytest.mark.slow
def test_two_portraits_pass_through_every_stage() -> None:
    document = rehearse("demo", [], random_weights=False)
    assert document["ok"], document
    names = [row["stage"] for row in document["stages"]]
    assert [name for name in names if name in CHECKS] == list(CHECKS)
    assert {"snapshot", "register", "report", "verify"} <= set(names)
