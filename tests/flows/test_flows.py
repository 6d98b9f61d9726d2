"""The whole main job through the command line, on a handful of heads: build, distil, evaluate, edit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from mlflow import MlflowClient
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from data_catalog.products.snapshot import open_snapshot
from flows.run.products import check_never_met
from tests.worlds.commands import SMALL

BUILD_STAGES = ("portraits", "align", "prompts", "edit", "score", "select", "teach", "dataset")

Document = dict[str, Any]
Run = Callable[..., Document]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with two style files beside it."""
    folder = tmp_path_factory.mktemp("main-job")
    (folder / "styles").mkdir()
    for style in ("red-hair", "zombie"):
        shutil.copy(PROJECT / "configs" / "styles" / f"{style}.txt", folder / "styles")
    return folder


@pytest.fixture(scope="module")
def stillroom(root: Path, mlflow_uri: str) -> Run:
    """The command in a process of its own; its JSON."""

    def run(*arguments: str, workers: str = "1") -> Document:
        settings = {**SMALL, "prompts.styles_dir": str(root / "styles"), "run.workers": workers}
        overrides = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
        environment = {**os.environ, "STILLROOM_DATA": str(root / "data")}
        command = [sys.executable, "-m", "flows.cli", *arguments, "--json", *overrides]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=PROJECT, check=False)
        assert ended.returncode == 0, ended.stderr[-3000:]
        document: Document = json.loads(ended.stdout)
        return document

    return run


@pytest.fixture(scope="module")
def built(stillroom: Run) -> Document:
    return stillroom("build", workers="2")


@pytest.fixture(scope="module")
def distilled(stillroom: Run, built: Document) -> Document:
    return stillroom("distill", "--name", "first", "--tag", "why=a test", "--note", "Nothing new.")


def test_build_names_a_dataset_that_is_there(built: Document, root: Path) -> None:
    keys = "dataset samples partitions_run partitions_cached rejected mlflow_run_id seconds"
    assert set(keys.split()) <= set(built)
    snapshot = open_snapshot(root / "data", built["dataset"])
    assert snapshot.samples(["key"]).num_rows == built["samples"] == 12
    assert {"README.md", "report.html"} <= {path.name for path in snapshot.folder.iterdir()}


def test_a_second_build_makes_nothing_and_the_same_dataset(stillroom: Run, built: Document) -> None:
    again = stillroom("build")
    assert (again["partitions_run"], again["partitions_cached"]) == (0, built["partitions_run"])
    assert (again["dataset"], again["mlflow_run_id"]) == (built["dataset"], built["mlflow_run_id"])
    assert again.keys() == built.keys()


def test_a_dropped_style_file_runs_only_that_style(stillroom: Run, built: Document, root: Path) -> None:
    added = root / "styles" / "clown.txt"
    shutil.copy(PROJECT / "configs" / "styles" / "clown.txt", added)
    try:
        stages = {row["stage"]: row for row in stillroom("plan")["stages"]}
    finally:
        added.unlink()
    to_do = {name: stages[name]["run"] + stages[name]["maybe"] for name in BUILD_STAGES}
    per_style = {"prompts": 1, "edit": 2, "score": 2, "select": 1, "teach": 2}
    assert to_do == {"portraits": 0, "align": 0, **per_style, "dataset": 1}


def test_the_dataset_is_an_input_of_its_mlflow_run(built: Document, mlflow_uri: str) -> None:
    run = MlflowClient(tracking_uri=mlflow_uri).get_run(built["mlflow_run_id"])
    (given,) = run.inputs.dataset_inputs
    assert built["dataset"].startswith(given.dataset.digest)
    assert run.data.tags["stillroom.dataset.digest"] == built["dataset"]
    assert run.info.status == "FINISHED"


def test_the_student_is_registered_with_signature_and_example(distilled: Document, mlflow_uri: str) -> None:
    import mlflow

    client = MlflowClient(tracking_uri=mlflow_uri)
    (version,) = client.search_model_versions("name='stillroom-demo'", max_results=1)
    mlflow.set_tracking_uri(mlflow_uri)
    model = mlflow.models.get_model_info(f"models:/stillroom-demo/{version.version}")
    assert model.signature.inputs.input_names() == ["image", "prompt", "yaw", "pitch"]
    assert model.saved_input_example_info is not None
    run = client.get_run(distilled["mlflow_run_id"])
    assert run.data.tags["stillroom.student.digest"] == distilled["student"]
    named = (run.info.run_name, run.data.tags["why"], run.data.tags["mlflow.note.content"])
    assert named == ("first", "a test", "Nothing new.")
    registered = client.get_registered_model("stillroom-demo")
    assert registered.aliases["newest"] == version.version
    assert "stillroom-demo@newest" in registered.description


def test_evaluate_fills_the_table_and_the_plan_is_empty(
    stillroom: Run, distilled: Document, root: Path, mlflow_uri: str
) -> None:
    evaluated = stillroom("evaluate", "--student", distilled["student"], "--set=distill.lr=0.5")
    assert {row["method"] for row in evaluated["table"]} == {"student", "editor+teacher", "no edit"}
    columns = {"method", "id", "clip", "three_d", "lpips", "seconds_per_image"}
    assert all(columns <= set(row) for row in evaluated["table"])
    assert all(len(rows) == len(evaluated["table"]) for rows in evaluated["per_style"].values())
    assert {"intervals", "difference", "speedup", "timing"} <= set(evaluated)
    assert all(row["run"] == row["maybe"] == 0 for row in stillroom("plan")["stages"])
    report = open_snapshot(root / "data", evaluated["dataset"]).folder / "report.html"
    assert "editor+teacher" in report.read_text(encoding="utf-8")
    client = MlflowClient(tracking_uri=mlflow_uri)
    examined, trained = (client.get_run(made["mlflow_run_id"]).data for made in (evaluated, distilled))
    assert examined.params["distill.lr"] == trained.params["distill.lr"] != "0.5"  # the student's own
    (own,) = [row for row in evaluated["table"] if row["method"] == "student"]
    for name in ("abstract/id", "evaluate.student.id"):
        assert examined.metrics[name] == trained.metrics[name] == pytest.approx(own["id"])
    assert stillroom("evaluate")["mlflow_run_id"] == evaluated["mlflow_run_id"]  # nothing to do, and no second run


def test_baselines_fill_the_papers_table_and_go_on_where_they_were(
    stillroom: Run, distilled: Document, root: Path, mlflow_uri: str
) -> None:
    few = ("invert_steps", "spi_invert_steps", "pti_steps", "spi_steps", "styleclip_steps", "nada_steps")
    budget = [f"--set=baselines.{name}=1" for name in few]
    asked = ("baselines", "--portraits", "1", "--styles", "zombie", *budget)
    made = stillroom(*asked)
    assert [row["method"] for row in made["table"]] == [
        "PTI + StyleCLIP", "Live3D + StyleCLIP", "SPI + StyleGAN-NADA", "IP2P + Live3D", "ours",
    ]  # fmt: skip
    assert all(
        {"id", "clip", "three_d", "lpips", "seconds_per_image", "psnr_novel"} <= set(row) for row in made["table"]
    )
    assert (made["partitions_run"], made["portraits"], made["styles"]) == (5, 1, ["zombie"])
    page, sheet = (Path(path) for path in made["files"])
    assert "| SPI + StyleGAN-NADA |" in page.read_text(encoding="utf-8")
    with Image.open(sheet) as picture:
        assert min(picture.size) > 300
    (lost,) = (root / "data" / "store" / "baseline" / "spi-nada" / "zombie").iterdir()
    shutil.rmtree(lost)  # as if the run had been killed before it
    again = stillroom(*asked)
    assert (again["partitions_run"], again["partitions_cached"]) == (1, 4)
    assert [row["id"] for row in again["table"]] == [row["id"] for row in made["table"]]  # the same seeds
    other = stillroom(*asked, "--set=baselines.nada_steps=2")
    assert (other["partitions_run"], other["partitions_cached"]) == (1, 4)
    client = MlflowClient(tracking_uri=mlflow_uri)
    run = client.get_run(made["mlflow_run_id"])
    assert run.data.metrics["baselines.ours.id"] == pytest.approx(made["table"][4]["id"])
    below = client.search_runs(
        [run.info.experiment_id], f"tags.mlflow.parentRunId = '{made['mlflow_run_id']}'", max_results=20
    )
    children = {each.data.tags["stillroom.stage"]: each.data.metrics for each in below}
    assert set(children) == {f"baseline/{name}" for name in
                             ("pti-styleclip", "live3d-styleclip", "spi-nada", "ip2p-live3d", "ours")}  # fmt: skip
    assert children["baseline/ours"]["three_d"] == pytest.approx(made["table"][4]["three_d"])


def test_edit_writes_portrait_views_and_turntable(
    stillroom: Run, distilled: Document, root: Path, tmp_path: Path
) -> None:
    portrait = next((root / "data" / "store" / "portraits").rglob("*.png"))
    edited = stillroom("edit", str(portrait), "--prompt", "Make the hair red", "--out", str(tmp_path), "--views", "2")
    names = [Path(path).name for path in edited["files"]]
    assert names == ["edited.png", "view_00.png", "view_01.png", "turntable.gif"]
    with Image.open(tmp_path / "edited.png") as picture:
        assert picture.size == (64, 64)
    with Image.open(tmp_path / "turntable.gif") as turntable:
        assert turntable.n_frames > 10


def test_adapt_makes_pairs_of_a_dropped_style_and_a_delta_that_edit_takes(
    stillroom: Run, distilled: Document, root: Path, tmp_path: Path
) -> None:
    added = root / "styles" / "bald.txt"
    shutil.copy(PROJECT / "configs" / "styles" / "more" / "bald.txt", added)
    budget = [f"--set=adapt.{given}" for given in ("seconds=0.2", "looks_s=[0.1]", "rehearsals=1", "batch_size=2")]
    try:
        adapted = stillroom("adapt", "bald", *budget)
        again = stillroom("adapt", "bald", *budget)
        built = stillroom("plan")
    finally:
        added.unlink()
    assert {"student", "pairs", "seconds", "curve"} <= set(adapted)
    assert [set(point) for point in adapted["curve"]] == [{"seconds", "lpips"}] * 3
    assert adapted["pairs"] <= 4
    assert adapted["base"] == distilled["student"] != adapted["student"]
    assert set(adapted["old_styles"]) == {"red-hair", "zombie"}
    assert (again["partitions_run"], again["student"]) == (0, adapted["student"])
    # What was edited for the pairs, a build of all styles need not edit again.
    assert next(row for row in built["stages"] if row["stage"] == "edit")["run"] == 0
    portrait = next((root / "data" / "store" / "portraits").rglob("*.png"))
    edited = stillroom("edit", str(portrait), "--prompt", "Make him bald", "--style", "bald", "--out", str(tmp_path))
    assert (tmp_path / "edited.png").is_file()
    assert edited["portraits"] == 1


def test_a_student_is_examined_on_portraits_of_another_dataset(stillroom: Run, distilled: Document) -> None:
    others = ["--set", "portraits.seed=900", "--set", "portraits.test_fraction=0.9"]
    dataset = stillroom("build", *others)["dataset"]
    evaluated = stillroom("evaluate", "--student", distilled["student"], "--dataset", dataset, *others)
    assert {row["method"] for row in evaluated["table"]} == {"student", "editor+teacher", "no edit"}
    assert evaluated["partitions_run"] == 1


def test_what_a_student_has_met_is_no_exam() -> None:
    learned = pa.table({"portrait_id": ["a", "b"], "prompt": ["one", "two"], "split": ["train", "test"]})
    check_never_met(learned, learned)
    for met in ({"portrait_id": "a", "prompt": "two"}, {"portrait_id": "c", "prompt": "one"}):
        with pytest.raises(UserError, match="was trained on test data"):
            check_never_met(learned, pa.table({name: [value] for name, value in (met | {"split": "test"}).items()}))
