"""A run carries out a plan: failures stay where they are, a second run has nothing to do."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from mlflow import MlflowClient
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker

from data_catalog.care.mend import damaged_places
from data_catalog.care.verify import note_damage, verify
from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.plan.plan import make_plan
from data_catalog.store.record import Record
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from data_catalog.store.store import Store
from flows.ask.plan import stage_rows
from flows.care.repair import make_again
from flows.care.retry import last_failed
from flows.run.active import ActiveNote, ActiveRun
from flows.run.fan_out import FanOut
from flows.run.history import RunNote, note_run
from flows.run.recording import Recording
from flows.run.run import FlowRun
from flows.run.runner import Workers
from flows.track.mlflow_runs import Tracker
from flows.track.prefect_pages import ProgressBar, show_plan
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
        tracker = Tracker(tmp_path, settings, "build-dataset")
        tracker.begin()
        about = ActiveRun("build-dataset", "demo", str(tmp_path), None, tracker.run_id, None, list(overrides))
        recording = Recording(plan, tracker, ActiveNote(tmp_path / "active.json", about))
        return FlowRun(plan, recording, FanOut(workers, tmp_path))

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


def test_a_worker_is_at_a_job_from_when_it_is_free_to_its_end(start: Start) -> None:
    run = start()
    stage, jobs = run.plan.stages[0], {job.key: job for job in run.plan.resolve("draw")}
    pieces = [(piece.since, list(piece.outcomes)) for piece in run.fan_out.pieces(stage, jobs)]
    (since,) = {given for given, _ in pieces}
    spans = sorted(outcome.span or (0.0, 0.0) for _, outcomes in pieces for outcome in outcomes)
    ends = [end for _, end in spans]
    assert len(spans) == len(STYLES) * len(BLOCKS)
    assert spans[0][0] == since
    assert all(began < end <= time.time() for began, end in spans)
    assert all(began == since or began in ends for began, _ in spans)  # without a gap
    assert isinstance(pieces[0][1][0].value, Record)


def test_a_failed_partition_blocks_only_what_needs_it(start: Start) -> None:
    run = start("edit.seed=13")
    drawn = run.stage("draw")
    assert (drawn.tally.made, drawn.tally.failed) == (3, 1)
    assert run.stage("count").tally.blocked == 1
    with pytest.raises(UserError, match="1 partition failed; 1 waits for it") as caught:
        run.conclude()
    assert "the pencil broke" in caught.value.fields["draw/zombie/0001"]


def test_a_run_makes_only_what_it_may_and_remembers_what_failed(start: Start) -> None:
    first = start("edit.seed=13")
    first.stage("draw")
    first.stage("count")
    note = first.recording.note("failed")
    assert (note.stage, note.overrides) == ("count", ["edit.seed=13"])
    assert note.failed == {"draw/zombie/0001": "the pencil broke"}
    assert note.blocked == ["count/all"]
    later = start("edit.seed=14")
    later.only = frozenset({*note.failed, *note.blocked})
    assert later.stage("draw").tally.made == 1  # the others would run too: their seed changed
    assert later.plan.steps["draw/zombie/0001"].state == "done"
    assert later.plan.steps["draw/red-hair/0000"].state == "run"
    assert later.stage("count").tally.blocked == 1


def test_retry_takes_the_last_run_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    with pytest.raises(UserError, match="no partition failed in the last runs of the profile 'demo'"):
        last_failed("demo")
    failed = {"edit/zombie/0001": "the pencil broke"}
    note_run(tmp_path, RunNote("distill", "demo", "completed", 1.0, ended="2026-01-03"))
    note_run(tmp_path, RunNote("evaluate", "demo", "failed", 1.0, failed={"evaluate/all": "no"}, ended="2026-01-01"))
    note_run(tmp_path, RunNote("build-dataset", "demo", "failed", 1.0, failed=failed, ended="2026-01-02"))
    note_run(tmp_path, RunNote("reproduce", "paper", "failed", 1.0, failed=failed, ended="2026-01-04"))
    assert last_failed("demo").flow == "build-dataset"
    assert last_failed("demo").failed == failed


def test_repair_makes_exactly_the_damaged_partitions_again(start: Start) -> None:
    first = start()
    first.stage("draw")
    first.stage("count")
    folder = first.plan.catalog.folder(first.plan.steps["draw/zombie/0001"].entry)
    (folder / "drawing.txt").write_text("a blot")
    seen = verify(first.root)
    note_damage(first.root, seen.damaged)
    assert seen.partitions == ["draw/zombie/0001"]
    run = start()
    run.only = frozenset(damaged_places(first.root, seen.damaged))
    ((key, (before, after)),) = make_again(run).items()
    assert (key, before) == ("draw/zombie/0001", after)
    assert list(run.results) == ["draw"]
    assert verify(first.root).damaged == []
    other = start("edit.seed=7")  # what other settings made is not made again with these
    other.only = run.only
    assert make_again(other) == {}


def test_mlflow_gets_counts_yields_and_addresses_under_stable_keys(start: Start, mlflow_uri: str) -> None:
    run = start()
    run.stage("draw")
    run.stage("count")
    run.tracker.finish()
    client = MlflowClient(tracking_uri=mlflow_uri)
    parent = client.get_run(run.tracker.run_id)
    assert parent.data.params["edit.steps"] == str(run.settings.edit.steps)
    assert parent.data.metrics["count/draw.samples"] == 12
    assert parent.data.metrics["count/draw.rejected.too dark"] == 4
    assert parent.data.metrics["draw.yield"] == 0.75
    assert parent.data.metrics["draw.darkness"] == 0.25
    children = client.search_runs([run.tracker.experiment_id], f"tags.`mlflow.parentRunId` = '{run.tracker.run_id}'")
    assert sorted(child.info.run_name for child in children) == ["count", "draw"]
    (counted,) = [child for child in children if child.info.run_name == "count"]
    curve = client.get_metric_history(counted.info.run_id, "loss")
    assert [point.step for point in curve] == [0, 1, 2]
    assert [a.path for a in client.list_artifacts(counted.info.run_id)] == ["partitions.json"]


def test_two_runs_compare_by_the_same_keys_with_the_results_first(start: Start, mlflow_uri: str) -> None:
    runs = [start("edit.seed=1"), start("edit.seed=2")]
    for run in runs:
        with run.recording.until_end():
            run.stage("draw")
            run.stage("count")
    client = MlflowClient(tracking_uri=mlflow_uri)
    one, two = (client.get_run(run.tracker.run_id).data for run in runs)
    assert (one.metrics.keys(), one.params.keys()) == (two.metrics.keys(), two.params.keys())
    assert {name for name in one.params if one.params[name] != two.params[name]} == {"edit.seed"}
    assert min(one.metrics) == "abstract/seconds"
    measured = {"draw.darkness", "draw.seconds", "draw.yield", "count.seconds", "count.yield"}
    assert {name for name in one.metrics if not name.startswith(("abstract/", "count/"))} == measured


@pytest.fixture
def states(start: Start, prefect_api: None) -> Callable[..., dict[str, State[Any]]]:
    """Run the two stages as a Prefect flow; its task runs' final states by name."""

    def run_flow(*overrides: str) -> dict[str, State[Any]]:
        @flow(name="draw-and-count")
        def draw_and_count() -> None:
            run = start(*overrides)
            show_plan(stage_rows(run.plan))
            run.stage("draw")
            run.stage("count")
            run.conclude()

        flow_run_state = draw_and_count(return_state=True)
        EventsWorker.drain_all()  # the server learns of task runs by events
        return {"flow": flow_run_state, **read_states(flow_run_state.state_details.flow_run_id)}

    return run_flow


def read_states(flow_run_id: UUID | None, patience_s: float = 300.0) -> dict[str, State[Any]]:
    """The final states of a flow run's tasks, once the server shows the same ones twice in a second."""
    before: dict[str, State[Any]] = {}
    end = time.monotonic() + patience_s
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id={"any_": [flow_run_id]}))
            found = {each.name: each.state for each in runs if each.state is not None and each.state.is_final()}
            if found and len(found) == len(runs) and found.keys() == before.keys():
                break
            before = found
            time.sleep(1.0)
    return before


def test_task_runs_say_stage_style_and_what_came_out(states: Callable[..., dict[str, State[Any]]]) -> None:
    first = states()
    assert set(first) == {"flow", "draw red-hair", "draw zombie", "count"}
    assert first["draw zombie"].message == "2 made with 6 samples, 2 samples rejected (2 too dark)"
    again = states()
    assert set(again) == {"flow", "draw", "count"}
    assert (again["draw"].name, again["draw"].message) == ("Cached", "4 up to date")


def test_the_plan_is_a_table_on_the_flow_run(states: Callable[..., dict[str, State[Any]]]) -> None:
    flow_run_id = states()["flow"].state_details.flow_run_id
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(flow_run_filter=FlowRunFilter(id={"any_": [flow_run_id]}))
    (plan,) = [artifact for artifact in artifacts if artifact.key == "plan"]
    assert [row["stage"] for row in json.loads(str(plan.data))] == ["draw", "count"]


def test_a_failed_partition_fails_the_flow_run_by_name(states: Callable[..., dict[str, State[Any]]]) -> None:
    ended = states("edit.seed=13")
    assert ended["flow"].is_failed()
    assert "draw/zombie/0001" in (ended["flow"].message or "")
    assert ended["draw red-hair"].is_completed()
    assert ended["draw zombie"].is_failed()


def test_the_time_left_is_told_by_the_pace_of_the_steps_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]  # of the modules alone: threads of other tests still look at the real clock
    monkeypatch.setattr("flows.track.prefect_pages.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("tasks.progress.monotonic", lambda: now[0])
    bar = ProgressBar("distill")
    with caplog.at_level("INFO"):
        for now[0], done in ((60.0, 500), (80.0, 510), (100.0, 520)):  # a minute of preparation, and steps from before
            bar.update(done, 1000)
    assert [record.getMessage() for record in caplog.records] == [
        "distill    500 of 1000",
        "distill    510 of 1000, about 16 min left",
        "distill    520 of 1000, about 16 min left",
    ]
