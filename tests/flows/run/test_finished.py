"""A build or a training with nothing to do says so at once, and never while there is something to do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks.stages
from benchmarks.instant_stages import STAGES
from benchmarks.large import fill_store
from data_catalog.config.places import PROFILES, PROJECT
from data_catalog.config.profiles import load_settings
from data_catalog.products.snapshot import DOCUMENTS, publish
from data_catalog.store.execute import execute
from data_catalog.workspace import Workspace
from flows.ask.plan import open_plan
from flows.run.finished import finished
from flows.run.history import last_run, note_maker
from flows.run.products import find_dataset

OVERRIDES = [f"portraits.{given}" for given in ("count=2", "block_size=1")] + ["prompts.styles_dir=styles"]
ENGINES = ("prefect", "mlflow", "scipy", "cv2", "torch", "dask", "PIL", "jinja2", "httpx")
COUNTS = {"dataset", "samples", "partitions_run", "partitions_cached", "rejected", "mlflow_run_id", "seconds"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which every instant partition of two styles is made and the dataset published, and the styles."""
    root = tmp_path_factory.mktemp("made")
    (root / "styles").mkdir()
    for style in ("red-hair", "zombie"):
        shutil.copy(PROJECT / "configs" / "styles" / f"{style}.txt", root / "styles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.stages, "STAGES", STAGES)
        patch.chdir(root)
        fill_store(root / "data", dict(text.split("=") for text in OVERRIDES))
        plan = open_plan(load_settings("demo", OVERRIDES), root / "data")
    entry = plan.steps["dataset/all"].entry
    assert entry is not None
    snapshot = publish(
        root / "data", plan.catalog.folder(entry), dict.fromkeys(DOCUMENTS, b"as it is"), as_latest=False
    )
    note_maker(root / "data", snapshot.digest, "the-run-that-made-it")
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, worked on."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(tasks.stages, "STAGES", STAGES)
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(**parameters: Any) -> dict[str, Any] | None:
    return finished("build-dataset", "demo", OVERRIDES, {"force": None, "cluster": None, **parameters})


def test_a_build_with_nothing_to_do_names_the_dataset_and_the_run_that_made_it(here: Path) -> None:
    outcome = build()
    assert outcome is not None
    assert set(outcome) == COUNTS
    assert (outcome["partitions_run"], outcome["partitions_cached"]) == (0, 21)
    assert outcome["mlflow_run_id"] == "the-run-that-made-it"
    assert (here / "data" / "datasets" / outcome["dataset"][:16]).is_dir()
    note = last_run(here / "data", "build-dataset")
    assert (note.state, note.outcome, note.failed) == ("completed", outcome, {})


def test_of_a_dataset_made_by_an_older_version_no_run_is_known(here: Path) -> None:
    shutil.rmtree(here / "data" / "runs" / "made")
    outcome = build()
    assert outcome is not None
    assert outcome["mlflow_run_id"] is None


def some_file(root: Path, pattern: str) -> Path:
    return sorted((root / "data").glob(pattern))[0]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def leave_run(root: Path) -> None:
    """The note of a flow whose process died."""
    values = {"flow": "distill", "profile": "demo", "root": str(root), "mlflow_uri": None}
    note = root / "data" / "runs" / "active" / "distill-1.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({**values, "mlflow_run_id": "1", "flow_run_id": None}))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a style dropped in": lambda root: (root / "styles" / "neon.txt").write_text("Make it neon"),
    "a style edited": lambda root: (root / "styles" / "zombie.txt").write_text("Make it a zombie"),
    "a style removed": lambda root: (root / "styles" / "zombie.txt").unlink(),
    "a byte flipped": lambda root: flip(some_file(root, "store/teach/zombie/0001/*/made.txt")),
    "a file deleted": lambda root: some_file(root, "store/edit/zombie/0001/*/made.txt").unlink(),
    "a partition deleted": lambda root: shutil.rmtree(some_file(root, "store/score/zombie/0000")),
    "the snapshot damaged": lambda root: flip(some_file(root, "datasets/*/samples.parquet")),
    "the snapshot gone": lambda root: shutil.rmtree(some_file(root, "datasets/*")),
    "the report gone": lambda root: some_file(root, "datasets/*/report.html").unlink(),
    "a run that was killed": leave_run,
}


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_the_build_runs(change: str, here: Path) -> None:
    assert build() is not None
    CHANGES[change](here)
    assert build() is None


def test_what_is_forced_runs(here: Path) -> None:
    assert build(force=["teach"]) is None


def test_only_the_settings_of_a_profile_make_the_latest_dataset(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = here / "data" / "datasets" / "latest"
    assert build() is not None
    assert not latest.exists()
    profiles = here / "profiles"
    profiles.mkdir()
    own = yaml.safe_load((PROFILES / "demo.yaml").read_text())
    own["portraits"] = own.get("portraits", {}) | {"count": 2, "block_size": 1}
    own["prompts"] = own.get("prompts", {}) | {"styles_dir": "styles"}
    (profiles / "demo.yaml").write_text(yaml.safe_dump(own))
    defaults = load_settings.__defaults__
    assert defaults is not None
    monkeypatch.setattr(load_settings, "__defaults__", (*defaults[:-1], profiles))
    outcome = finished("build-dataset", "demo", [], {})
    assert outcome is not None
    assert latest.read_text().strip() == outcome["dataset"]


def test_a_student_that_is_trained_is_named_and_of_another_dataset_it_is_not(here: Path) -> None:
    settings, root = load_settings("demo", OVERRIDES), here / "data"
    assert finished("distill", "demo", OVERRIDES, {"dataset": None}) is None
    plan = open_plan(settings, root, pins=find_dataset(None, Workspace(settings, root)))
    (job,) = plan.resolve("distill")
    record = execute(job, root)
    note_maker(root, record.digest, "the-training")
    outcome = finished("distill", "demo", OVERRIDES, {"dataset": None})
    assert outcome is not None
    built = build()
    assert built is not None
    assert (outcome["student"], outcome["dataset"]) == (record.digest, built["dataset"])
    assert (outcome["partitions_run"], outcome["partitions_cached"]) == (0, 1)
    assert outcome["mlflow_run_id"] == "the-training"
    assert finished("distill", "demo", [*OVERRIDES, "distill.iterations=7"], {"dataset": None}) is None


def test_a_build_with_nothing_to_do_imports_no_engine(here: Path) -> None:
    script = (
        "import sys\n"
        "from benchmarks.instant import InsteadOfStages, main\n"
        "sys.meta_path.insert(0, InsteadOfStages())\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print([name for name in {ENGINES!r} if name in sys.modules], file=sys.stderr)\n"
    )
    settings = [text for each in OVERRIDES for text in ("--set", each)]
    for command in ("plan", "build"):
        ended = subprocess.run(
            [sys.executable, "-c", script, command, "--json", *settings],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            check=False,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.splitlines()[-1] == "[]"
        document = json.loads(ended.stdout)
        assert set(document) == COUNTS if command == "build" else document["estimate"]["partitions"] == 2
    assert not (here / "data" / "mlflow").exists()
