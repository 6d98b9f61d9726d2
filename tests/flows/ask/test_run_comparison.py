"""Two evaluated students in a real MLflow: what `compare` tells of them, as JSON, in the terminal and as a page."""

import base64
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.products.snapshot import Snapshot, publish, write_snapshot_files
from data_catalog.store.record import Record
from data_catalog.workspace import Workspace
from flows.ask.run_comparison import Runs, compare_runs
from flows.cli.compare import compare_table
from flows.track.mlflow_runs import Tracker
from tasks.evaluation.table import METHODS
from tasks.pictures.sheets import contact_sheet, write_gif, write_png
from tasks.reports.students import compare_evaluations, cut_sheet, turn_together

COLUMNS = ["portrait", "pseudo-label", "true edit", "editor+teacher", "student", "student left", "student right"]
KEYS = ["p1-zombie-8-0", "p2-zombie-9-0"]
PX, FRAMES = 16, 3


@dataclass(frozen=True)
class World:
    """A data root with a dataset and two evaluations, and the runs that made them."""

    root: Path
    dataset: Snapshot
    folders: tuple[Path, Path]
    runs: tuple[str, str]
    training: str  # a distill run of the second student


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> World:
    root = tmp_path_factory.mktemp("data")
    dataset = write_dataset(root, ["zombie"] * 3)
    folders = draw(root / "evaluate-1", student=50), draw(root / "evaluate-2", student=200)
    first = track(root, dataset, folders[0], "1" * 64, {"student.lpips": 0.9, "student.psnr_novel": 20.0})
    second = track(root, dataset, folders[1], "2" * 64, {"student.lpips": 0.7, "student.psnr_novel": 19.0}, steps=30)
    trained = Tracker(root, Settings(), "distill")
    trained.tag("student.digest", "2" * 64)
    trained.metrics(trained.run_id, {"distill.loss": 0.25})
    trained.finish()
    return World(root, dataset, folders, (first, second), trained.run_id)


def write_dataset(root: Path, styles: list[str]) -> Snapshot:
    folder = root / f"made-{len(styles)}"
    folder.mkdir()
    keys = [f"p{number}-{style}-0-0" for number, style in enumerate(styles)]
    table = pa.table({"key": keys, "style": styles, "score_ssim": [0.5] * len(styles)})
    write_snapshot_files(folder, table, {"name": "faces", "settings": {"edit": {"steps": len(styles)}}})
    return publish(root, folder)


def flat(level: int) -> np.ndarray:
    return np.full((PX, PX, 3), level, np.uint8)


def draw(folder: Path, student: int, keys: list[str] = KEYS, frames: int = FRAMES) -> Path:
    """What the stage evaluate leaves of one style: flat cells whose level says what they are."""
    folder.mkdir(parents=True)
    rows = [[flat(10 * place) for place in range(4)] + [flat(student + n + row) for n in (0, 10, 20)] for row in (0, 5)]
    write_png(folder / "comparison-zombie.png", contact_sheet(rows, 2))
    turns = [contact_sheet([[flat(student), flat(20 + n), flat(30)]]) for n in range(frames)]
    write_gif(folder / "turntable-zombie.gif", turns, 2)
    shown = {
        "comparison": "comparison-zombie.png",
        "turntable": "turntable-zombie.gif",
        "columns": COLUMNS,
        "keys": keys,
        "prompts": ["a zombie", "the undead"],
        "turntable_columns": list(METHODS),
    }
    (folder / "table.json").write_text(json.dumps({"pictures": {"zombie": shown}}))
    return folder


def track(root: Path, dataset: Snapshot, folder: Path, student: str, metrics: dict[str, float], steps: int = 20) -> str:
    """A run as the flow evaluate tracks it."""
    tracker = Tracker(root, load_settings("demo", [f"edit.steps={steps}"]), "evaluate")
    tracker.dataset("faces", dataset.digest, dataset.folder.as_uri(), 3)
    tracker.tag("student.digest", student)
    record = Record(
        partition="evaluate/all",
        stage="evaluate",
        version=1,
        fingerprint=student,
        fingerprint_inputs={},
        digest=student,
        files={},
        metrics=metrics,
    )
    with tracker.stage("evaluate") as stage_log:
        stage_log.summary({"seconds": float(steps)}, [(record, folder.as_uri())])
    tracker.finish()
    return tracker.run_id


@pytest.fixture
def at_root(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("STILLROOM_DATA", str(world.root))
    return world


def test_settings_metrics_and_datasets_stand_side_by_side(at_root: World) -> None:
    found = compare_runs(at_root.runs[0][:12], at_root.runs[1], None, Workspace.open())
    assert (found["a"]["run_id"], found["b"]["run_id"]) == at_root.runs
    assert found["settings"] == [{"setting": "edit.steps", "a": "20", "b": "30"}]
    metrics = {row["metric"]: row for row in found["metrics"]}
    lpips, psnr = metrics["evaluate.student.lpips"], metrics["evaluate.student.psnr_novel"]
    assert (lpips["a"], lpips["b"], lpips["better"]) == (0.9, 0.7, "b")  # lower is better
    assert lpips["change"] == pytest.approx(-0.2)
    assert psnr["better"] == "a"
    assert metrics["evaluate.seconds"]["better"] is None
    assert [row["bookkeeping"] for row in found["metrics"]] == sorted(row["bookkeeping"] for row in found["metrics"])
    assert found["dataset"]["samples"] == {"added": 0, "removed": 0, "changed": 0, "unchanged": 3}


def test_a_training_run_is_compared_with_the_evaluation_of_its_student(at_root: World) -> None:
    found = compare_runs(at_root.runs[0], at_root.training, None, Workspace.open())
    assert found["b"]["evaluated_by"] == at_root.runs[1]
    metrics = {row["metric"]: row for row in found["metrics"]}
    assert (metrics["evaluate.student.lpips"]["b"], metrics["distill.loss"]["a"]) == (0.7, None)
    assert found["dataset"] is None  # the training run names none


def test_the_page_shows_both_students_and_loads_nothing(at_root: World, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    compare_runs(*at_root.runs, page, Workspace.open())
    text = page.read_text()
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]*)""", text)
    assert all(source.startswith(("data:image/", "#")) for source in sources)
    assert "<script" not in text
    assert text.count("data:image/webp") == 3  # two samples and a turntable
    for words in ("<span>true edit</span><span>student A</span><span>student B</span>", "edit.steps", "-0.2"):
        assert words in text


def test_each_side_shows_its_own_student(world: World) -> None:
    shown = json.loads((world.folders[0] / "table.json").read_text())["pictures"]["zombie"]
    cells = cut_sheet(world.folders[0] / "comparison-zombie.png", shown)
    for row, key in enumerate(KEYS):
        for place, column in enumerate(COLUMNS):
            level = 10 * place if place < 4 else 50 + 10 * (place - 4) + 5 * row
            assert cells[key][column].shape == (2 * PX, 2 * PX, 3)
            assert (cells[key][column] == level).all(), column  # nothing of its neighbours, nothing of the seam
    (style,) = compare_evaluations(*world.folders)
    names = ["portrait", "true edit", "student A", "student B", "left A", "left B", "right A", "right B"]
    assert style["columns"] == names
    strip = decode(style["strips"][0]["picture"])
    levels = [int(strip[PX, 2 * PX * place + PX, 0]) for place in range(len(names))]
    assert levels == pytest.approx([0, 20, 50, 200, 60, 210, 70, 220], abs=3)


def decode(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"))


def test_other_portraits_are_each_shown_with_their_own_student(world: World, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", student=90, keys=["p7-zombie-8-0", "p8-zombie-8-0"])
    (style,) = compare_evaluations(world.folders[0], other)
    assert style["columns"][:3] == ["portrait A", "true edit A", "student A"]
    assert style["columns"][-1] == "student right B"
    assert style["turntable"] is None
    assert style["strips"][0]["prompt"] == "a zombie | a zombie"


def test_the_turntables_turn_together(world: World, tmp_path: Path) -> None:
    uri = turn_together(*(folder / "turntable-zombie.gif" for folder in world.folders))
    assert uri is not None
    both = decode(uri)
    assert both.shape == (2 * PX, 4 * PX, 3)
    assert [int(both[PX, PX, 0]), int(both[PX, 3 * PX, 0])] == pytest.approx([50, 200], abs=3)
    longer = draw(tmp_path / "longer", student=50, frames=FRAMES + 1)
    assert turn_together(*(f / "turntable-zombie.gif" for f in (world.folders[0], longer))) is None


def test_without_the_store_the_logged_pictures_are_shown(at_root: World, tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        tracker = Tracker(at_root.root, Settings(), "distill")
        picture = tmp_path / "samples.png"
        Image.fromarray(np.full((64, 64, 3), 90 * number, np.uint8)).save(picture)
        tracker.file(picture, "pictures")
        tracker.finish()
        runs.append(tracker.run_id)
    page = tmp_path / "compare.html"
    compare_runs(*runs, page, Workspace.open())
    assert page.read_text().count("data:image/webp") == 2
    assert "samples.png" in page.read_text()


def test_the_terminal_shows_what_differs(at_root: World) -> None:
    screen = io.StringIO()
    compare_table(compare_runs(*at_root.runs, None, Workspace.open()), Console(file=screen, width=80))
    text = screen.getvalue()
    assert re.search(r"edit\.steps\s+20\s+30", text)
    assert re.search(r"evaluate\.student\.lpips\s+0\.9\s+0\.7\s+-0\.2", text)
    assert f"both have the dataset {at_root.dataset.digest[:12]}" in text
    assert "other metrics are equal" in text


def test_runs_are_found_by_name_and_as_the_latest_that_finished(at_root: World) -> None:
    root, settings = at_root.root, Settings()
    only = Tracker(root, settings, "only-one")
    only.finish()
    running = Tracker(root, settings, "still-running")
    runs = Runs(root, settings)
    assert runs.find("only-one", "demo").info.run_id == only.run_id
    assert runs.find("latest", "demo").info.run_id == only.run_id
    running.finish("FAILED")
    with pytest.raises(UserError, match="no run of the profile paper has finished"):
        runs.find("latest", "paper")


def test_runs_of_two_datasets_tell_their_difference(at_root: World, tmp_path: Path) -> None:
    larger = write_dataset(at_root.root, ["zombie"] * 3 + ["neon"])
    run = track(at_root.root, larger, at_root.folders[0], "3" * 64, {})
    page = tmp_path / "compare.html"
    found = compare_runs(at_root.runs[0], run, page, Workspace.open())
    assert found["dataset"]["added"] == ["p3-neon-0-0"]
    assert found["dataset"]["settings"] == [{"setting": "edit.steps", "a": "3", "b": "4"}]
    assert "What made the datasets differ" in page.read_text()
    screen = io.StringIO()
    compare_table(found, Console(file=screen, width=80))
    assert "1 added, 0 removed, 0 changed, 3 unchanged samples" in screen.getvalue()


def test_an_unknown_or_ambiguous_run_says_which_there_are(at_root: World) -> None:
    runs = Runs(at_root.root, Settings())
    with pytest.raises(UserError, match="no run is named or starts with 'zzz'") as caught:
        runs.find("zzz", "demo")
    assert at_root.training[:8] in str(caught.value)
    with pytest.raises(UserError, match=r"\d runs are named or start with 'evaluate'") as caught:
        runs.find("evaluate", "demo")
    assert {run[:8] for run in at_root.runs} <= caught.value.fields.keys()
    assert "finished" in caught.value.fields[at_root.runs[0][:8]]


def test_a_data_root_without_runs_is_not_given_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="there is no run yet"):
        Runs(tmp_path / "data", Settings())
    assert not (tmp_path / "data").exists()
