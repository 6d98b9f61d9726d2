"""A run carries out a plan: failures stay where they are, a second run has nothing to do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data_catalog.errors import UserError
from data_catalog.plan import make_plan
from data_catalog.settings import Settings, load_settings
from data_catalog.stage import Need, Partition, Stage, Summary, Work
from data_catalog.store import Store
from flows.runner import Workers
from flows.session import FlowRun
from flows.tracking import Tracker
from tasks import progress

STYLES, BLOCKS = ["red-hair", "zombie"], [0, 1]


def draw(work: Work) -> Summary:
    """Fails for the seed 13 in the zombies' block 1 alone."""
    if work.settings.edit.seed == 13 and work.partition.key == "draw/zombie/0001":
        raise UserError("the pencil broke", hint="sharpen it")
    (work.folder / "drawing.txt").write_text(f"{work.partition.key} {work.settings.edit.seed}")
    return Summary(samples=3, rejected={"too dark": 1}, metrics={"darkness": 0.25})


def count(work: Work) -> Summary:
    for step in range(3):
        progress.report(step, 3, metrics={"loss": 1.0 / (step + 1)})
    texts = [(given.folder / "drawing.txt").read_text() for given in work.inputs["draw"]]
    (work.folder / "count.txt").write_text("\n".join(texts))
    return Summary(samples=len(texts))


def seed_only(settings: Settings, partition: Partition) -> dict[str, int]:
    return {"seed": settings.edit.seed}


FAKE_STAGES = (
    Stage("draw", 1, draw, split_by=("style", "block"), reads=seed_only),
    Stage("count", 1, count, needs=(Need("draw"),)),
)

Start = Callable[..., FlowRun]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(Settings().run) as pool:
        yield pool


@pytest.fixture
def start(tmp_path: Path, workers: Workers, mlflow_uri: str) -> Start:
    def start_run(*overrides: str) -> FlowRun:
        settings = load_settings("demo", list(overrides))
        plan = make_plan(FAKE_STAGES, settings, Store(tmp_path), STYLES, BLOCKS, lambda name: "")
        return FlowRun("build-dataset", tmp_path, plan, Tracker(tmp_path, settings, "build-dataset"), workers)

    return start_run


def test_a_second_run_makes_nothing(start: Start) -> None:
    first = start()
    first.stage("draw")
    first.stage("count")
    assert first.conclude()["partitions_run"] == 5
    second = start()
    assert second.stage("draw").tally.text == "4 up to date"
    second.stage("count")
    outcome = second.conclude()
    assert (outcome["partitions_run"], outcome["partitions_cached"]) == (0, 5)
    assert outcome["rejected"] == 4


def test_a_failed_partition_blocks_only_what_needs_it(start: Start) -> None:
    run = start("edit.seed=13")
    drawn = run.stage("draw")
    assert (drawn.tally.made, drawn.tally.failed) == (3, 1)
    assert run.stage("count").tally.blocked == 1
    with pytest.raises(UserError, match="1 partitions failed; 1 wait for them") as caught:
        run.conclude()
    assert "the pencil broke" in caught.value.fields["draw/zombie/0001"]


def test_mlflow_gets_counts_yields_and_addresses_under_stable_keys(start: Start, mlflow_uri: str) -> None:
    run = start()
    run.stage("draw")
    run.stage("count")
    run.tracker.finish(ok=True)
    client = MlflowClient(tracking_uri=mlflow_uri)
    parent = client.get_run(run.tracker.run_id)
    assert parent.data.params["edit.steps"] == str(run.settings.edit.steps)
    assert parent.data.metrics["draw.samples"] == 12
    assert parent.data.metrics["draw.rejected.too dark"] == 4
    assert parent.data.metrics["draw.yield"] == 0.75
    assert parent.data.metrics["draw.darkness"] == 0.25
    children = client.search_runs(
        [run.tracker.experiment_id], f"tags.`mlflow.parentRunId` = '{run.tracker.run_id}'"
    )
    assert sorted(child.info.run_name for child in children) == ["count", "draw"]
    (counted,) = [child for child in children if child.info.run_name == "count"]
    curve = client.get_metric_history(counted.info.run_id, "loss")
    assert [point.step for point in curve] == [0, 1, 2]
    assert [a.path for a in client.list_artifacts(counted.info.run_id)] == ["partitions.json"]
