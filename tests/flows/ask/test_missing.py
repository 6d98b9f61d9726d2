"""Missing files of the paper's profile are named with the way to get them, and the job's cost is forecast."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from data_catalog.config.profiles import load_settings
from flows.ask.forecast import count_tested, forecast, keep_note, taught_bytes, training_seconds
from flows.ask.missing import find_missing, outlook
from flows.cli.commands import app
from tests.tasks.sources.test_portrait_sources import write
from tests.tasks.test_portraits import picture


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "STILLROOM_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))


def test_every_missing_file_is_named_with_the_way_to_get_it() -> None:
    missing = {each.what.partition(" (")[0]: each for each in find_missing(load_settings("paper"))}
    assert set(missing) == {
        *("portraits", "a key for the language model"),
        *(f"weights {name}" for name in ("editor", "teacher", "clip", "identity", "mae", "lpips", "safety")),
    }
    assert "dataset_preprocessing/ffhq" in missing["portraits"].get
    assert "encoder_render_LT" in missing["weights teacher"].get
    assert missing["weights editor"].fetched
    assert "stillroom models fetch editor" in missing["weights editor"].get
    assert not any("landmarks" in what for what in missing)  # the profile does without


def test_what_is_given_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, weights = tmp_path / "models.yaml", tmp_path / "mae.pth"
    weights.write_bytes(b"weights")
    registry.write_text(yaml.safe_dump({"paper": {"mae": {"path": str(weights)}, "teacher": {"path": None}}}))
    monkeypatch.setenv("STILLROOM_MODELS", str(registry))
    overrides = ["portraits.source=procedural", "prompts.backend=builtin"]
    missing = find_missing(load_settings("paper", overrides))
    assert [(each.what, each.where) for each in missing] == [("weights teacher", "models.yaml, paper.teacher")]


def test_plan_forecasts_hours_and_disk_while_files_are_missing() -> None:
    ended = CliRunner().invoke(app, ["plan", "--profile", "paper", "--json"])
    assert ended.exit_code == 0, ended.output
    document = json.loads(ended.stdout)
    stages = {row["stage"]: row for row in document["stages"]}
    assert (stages["edit"]["partitions"], stages["edit"]["price"]["samples"]) == (560, 28_000)
    assert all(row["run"] == row["partitions"] and row["reasons"][0].startswith("waits for") for row in stages.values())
    assert document["gpu_hours"] == pytest.approx(sum(r["price"]["seconds"] for r in stages.values()) / 3600, abs=0.1)
    assert 20 < document["gpu_hours"] < 400
    assert document["estimate"]["bytes"] == sum(row["price"]["bytes"] for row in stages.values())
    table = CliRunner().invoke(app, ["plan", "--profile", "paper"])
    assert "GPU hours and" in table.stdout
    assert "still missing" in table.stdout


def test_the_forecast_follows_the_settings() -> None:
    paper = load_settings("paper")
    twice = load_settings("paper", [f"edit.steps={2 * paper.edit.steps}"])
    once, more = (forecast("edit", settings, 0) for settings in (paper, twice))
    assert once is not None
    assert more is not None
    assert 1.8 < more.seconds / once.seconds < 2.0
    assert taught_bytes(load_settings("paper", ["teach.triplane=none"])) < taught_bytes(paper) - 6e6
    assert training_seconds(load_settings("paper", ["distill.iterations=30000"])) == training_seconds(paper) / 2
    assert forecast("edit", load_settings("demo"), 0) is None
    assert outlook("demo", []) is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "one attempt at 1400 portraits gives them from a yield of 77%, 4 attempts from 19%"),
        (["portraits.count=1000"], "one attempt at 1000 portraits gives 930 at most, 4 attempts from 27%"),
        (["edit.prompts_per_portrait=2"], "takes portraits.count=1076"),
    ],
)
def test_the_forecast_says_how_many_portraits_the_wanted_samples_take(overrides: list[str], said: str) -> None:
    note = keep_note(load_settings("paper", overrides))
    assert note is not None
    assert said in note
    document = outlook("paper", overrides)
    assert document is not None
    assert note in document["notes"]
    assert keep_note(load_settings("demo")) is None


@pytest.mark.parametrize("count", ["null", "1000"])
def test_the_forecast_counts_the_portraits_that_there_are(count: str, tmp_path: Path) -> None:
    for number in range(30):
        write(tmp_path / "portraits", f"{number}.png", picture(number))
    document = outlook("paper", [f"portraits.source={tmp_path / 'portraits'}", f"portraits.count={count}"])
    assert document is not None
    stages = {row["stage"]: row for row in document["stages"]}
    assert [stages[name]["price"]["samples"] for name in ("portraits", "edit")] == [30, 20 * 30]
    assert "one attempt at 30 portraits" in document["notes"][0]


def test_with_all_files_there_a_plan_that_knows_no_records_is_priced_by_the_forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.ask.plan import describe_plan
    from models.zoo import zoo

    weights, registry = tmp_path / "weights", tmp_path / "models.yaml"
    weights.write_bytes(b"only its digest is asked for")
    registry.write_text(yaml.safe_dump({"paper": {name: {"path": str(weights)} for name in zoo.MODULES}}))
    monkeypatch.setenv("STILLROOM_MODELS", str(registry))
    overrides = ["portraits.source=procedural", "portraits.count=100", "prompts.backend=builtin"]
    assert outlook("paper", overrides) is None
    document = describe_plan("paper", overrides)
    assert {"edit", "teach", "distill", "evaluate"} <= set(document["estimate"]["forecast"])
    assert document["estimate"]["unknown"] == []
    assert document["estimate"]["seconds"] > 3600


def test_an_evaluation_is_forecast_by_its_hundred_pairs_and_its_hundred_timed_edits() -> None:
    paper = load_settings("paper", [])
    assert count_tested(paper, 1000, 20) == 100
    assert count_tested(paper, 10, 20) == round(20 * 10 * paper.portraits.test_fraction)
    every = load_settings("paper", ["evaluate.samples=null", "evaluate.max_samples_per_style=3"])
    assert count_tested(every, 1000, 20) == 60
    once = load_settings("paper", ["evaluate.timing_repeats=0"])
    timed, untimed = (forecast("evaluate", settings, 100) for settings in (paper, once))
    assert timed is not None
    assert untimed is not None
    steps = paper.edit.steps + 100
    edits = 100 * (3 * 0.803 * steps + 2 * (1.117 + 2.515))  # TFLOP
    assert timed.seconds - untimed.seconds == pytest.approx(edits / 40.0, rel=0.01)
