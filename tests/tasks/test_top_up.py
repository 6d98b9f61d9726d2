"""A style that keeps too few samples is attempted again, with nothing made twice and whatever the order of the work.

The plan, the choice of edits and the selection are the real ones; pictures and scores are drawn by lot from the keys.
"""

import dataclasses
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_catalog.care.gc import find_waste
from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import EditSettings
from data_catalog.plan.plan import Plan, make_plan
from data_catalog.plan.source import SourceReader
from data_catalog.products.snapshot import publish, write_snapshot_files
from data_catalog.samples.encoding import encode_json
from data_catalog.samples.seeds import fraction
from data_catalog.store.catalog import Catalog
from data_catalog.store.execute import Job, execute
from data_catalog.store.record import Summary
from data_catalog.store.stage import Partition, Work
from data_catalog.store.store import Store
from flows.run.active import ActiveNote, ActiveRun
from flows.run.fan_out import FanOut
from flows.run.recording import Recording
from flows.run.run import FlowRun
from flows.run.runner import Workers
from flows.track.mlflow_runs import Tracker
from models.zoo import zoo
from tasks import select
from tasks.edit import plan_edits
from tasks.stages import STAGES
from tasks.tables.edits import EDITS
from tasks.tables.faces import FACES, Face
from tasks.tables.scores import MEASURES, SCORES, Scores

STYLES, BLOCKS, PORTRAITS = ["red-hair", "zombie"], [0, 1, 2], 8
SOURCE = SourceReader()
BOOK = {
    "train": [{"number": n, "text": f"way {n}"} for n in range(8)],
    "test": [{"number": n, "text": f"way {n}"} for n in range(8, 13)],
}
SHORT = ["select.keep=17", "select.min_identity=0.4", "select.min_clip_text=null"]


def portraits(block: int) -> list[Face]:
    """Six of eight are for training."""
    splits = ["train"] * 6 + ["val", "test"]
    return [Face(portrait_id=f"p{10 * block + i:010x}", split=split) for i, split in enumerate(splits)]


def write_faces(work: Work) -> Summary:
    rows = portraits(work.partition.block or 0)
    FACES.write(work.folder, rows)
    return Summary(samples=len(rows))


def write_book(work: Work) -> Summary:
    (work.folder / "prompts.json").write_bytes(encode_json({**BOOK, "style": work.partition.style}))
    return Summary(samples=13)


def draw_edits(work: Work) -> Summary:
    people = FACES.read(work.input("align").folder)
    edits = plan_edits(people, {**BOOK, "style": work.partition.style}, work.settings.edit, work.partition.attempt)
    rows = [vars(each) | {"status": "ok", "reason": "", "pseudo_label_digest": ""} for each in edits]
    pq.write_table(pa.Table.from_pylist(rows, schema=EDITS.schema), work.folder / "edit.parquet")
    return Summary(samples=len(rows))


def draw_scores(work: Work) -> Summary:
    made = EDITS.read(work.input("edit").folder)
    measured = dict.fromkeys(MEASURES, 0.5) | {"score_constant": False, "decodes": True}
    worth = 0.8 if work.partition.style == "zombie" else 1.0  # a zombie resembles the portrait less
    lots = {row.key: worth * fraction("score", row.key) for row in made}
    SCORES.write(
        work.folder,
        [Scores(**{**measured, "key": row.key, "split": row.split, "score_identity": lots[row.key]}) for row in made],
    )
    return Summary(samples=len(made))


def list_inputs(work: Work) -> Summary:
    told = sorted(f"{each.partition.key} {each.digest}" for group in work.inputs.values() for each in group)
    (work.folder / "inputs.txt").write_text("\n".join(told))
    if work.partition.stage == "dataset":
        write_snapshot_files(work.folder, pa.table({"key": ["a"]}), {"partitions": dict(map(str.split, told))})
    return Summary(samples=1)


QUICK = {"align": write_faces, "prompts": write_book, "edit": draw_edits, "score": draw_scores, "select": select.run}


def weights_of(name: str) -> str:
    return f"weights of {name}"


class Scene:
    """A data root that is built stage by stage, as the flow does it, and may be left at any job."""

    def __init__(self, root: Path, overrides: list[str]) -> None:
        self.root, self.overrides, self.styles = root, overrides, STYLES
        self.ran: list[str] = []
        self.jobs_left = 10**9
        self.order: Callable[[list[Job]], list[Job]] = list

    def plan(self, *overrides: str) -> Plan:
        settings = load_settings("demo", [*self.overrides, *overrides])
        store = Store(self.root)
        return make_plan(
            STAGES, settings, store, self.styles, BLOCKS, weights_of, model_modules=zoo.modules, source=SOURCE
        )

    def build(self, *overrides: str) -> Plan:
        """All stages up to the dataset; edit, score and select again as long as a selection asks for it."""
        plan, self.ran = self.plan(*overrides), []
        for names in (["portraits", "align", "prompts"], ["edit", "score", "select"]):
            while sum(self._stage(plan, name) for name in names):
                pass
        for name in ("teach", "dataset"):
            self._stage(plan, name)
        plan.save()
        return plan

    def _stage(self, plan: Plan, name: str) -> int:
        jobs = self.order(plan.resolve(name))
        for job in jobs:
            if not self.jobs_left:
                raise KeyboardInterrupt
            self.jobs_left -= 1
            plan.finish(execute(dataclasses.replace(job, run=QUICK.get(name, list_inputs)), self.root))
            self.ran.append(job.key)
        return len(jobs)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "data", SHORT)


def digests(plan: Plan) -> dict[str, str]:
    return {key: step.entry.digest for key, step in plan.steps.items() if step.made and step.entry}


def attempts(keys: list[str], stage: str = "edit") -> list[str]:
    return sorted(key for key in keys if key.startswith(f"{stage}/") and Partition.parse(key).attempt)


def kept(plan: Plan, style: str) -> int:
    entry = plan.steps[f"select/{style}"].entry
    assert entry is not None
    rows = pq.read_table(plan.catalog.folder(entry) / "select.parquet").to_pylist()
    return sum(row["kept"] and row["split"] == "train" for row in rows)


def test_a_short_style_is_attempted_until_it_keeps_enough_and_the_other_is_left_alone(scene: Scene) -> None:
    first = scene.build("select.keep=null")
    had = {style: kept(first, style) for style in STYLES}
    short, full = sorted(STYLES, key=lambda style: had[style])
    assert had[short] < had[full]
    plan = scene.build(f"select.keep={had[full]}")
    assert kept(plan, short) >= had[full]
    assert kept(plan, full) == had[full]
    again = attempts(scene.ran)
    assert again
    assert {Partition.parse(key).style for key in again} == {short}
    # What was made stays; of the short style only the new attempts are edited, scored and taught.
    assert {key for key in scene.ran if key.startswith(("edit/", "score/", "teach/"))} == {
        f"{stage}/{key.partition('/')[2]}" for key in again for stage in ("edit", "score", "teach")
    }


def test_the_next_plan_and_build_find_everything_made(scene: Scene) -> None:
    built = scene.build()
    made = digests(built)
    assert attempts(list(made))
    plan = scene.plan()
    until = {step.key for stage in STAGES[:8] for step in plan.by_stage[stage.name]}
    assert {plan.steps[key].state for key in until} == {"cached"}
    assert digests(scene.build()) == made
    assert scene.ran == []


def test_a_damaged_selection_that_asked_for_more_is_made_again_alone(scene: Scene) -> None:
    built = scene.build()
    first = next(entry for entry in built.passed if entry.partition == "select/zombie")
    (built.catalog.folder(first) / "select.parquet").unlink()
    assert attempts(list(scene.plan().steps)) != attempts(list(built.steps))  # nobody knows of the zombies' attempts
    assert digests(scene.build()) == digests(built)
    assert scene.ran == ["select/zombie"]


def test_before_the_scores_are_known_no_attempt_is_planned(scene: Scene) -> None:
    assert attempts(list(scene.plan().steps)) == []


def test_the_order_in_which_workers_finish_changes_nothing(scene: Scene, tmp_path: Path) -> None:
    made = digests(scene.build())
    for seed in (1, 2):
        other = Scene(tmp_path / f"other-{seed}", SHORT)
        other.order = lambda jobs, seed=seed: random.Random(seed).sample(jobs, len(jobs))  # type: ignore[misc]
        assert digests(other.build()) == made


def test_a_build_that_is_killed_anywhere_goes_on_to_the_same_end(scene: Scene, tmp_path: Path) -> None:
    made, jobs = digests(scene.build()), len(scene.ran)
    last = next(place for place, key in enumerate(scene.ran) if Partition.parse(key).attempt)
    broken = Scene(tmp_path / "broken", SHORT)
    ran: list[str] = []
    for stop in (last - 1, 1, 1, 2, 1, 1, 2):  # around the first selections and attempts
        broken.jobs_left = stop
        with pytest.raises(KeyboardInterrupt):
            broken.build()
        ran += broken.ran
    broken.jobs_left = 10**9
    assert digests(broken.build()) == made
    assert len(ran) + len(broken.ran) == jobs  # nothing was made twice


def test_a_moved_threshold_edits_no_image_again(scene: Scene) -> None:
    before = scene.build()
    made = set(attempts(list(digests(before))))
    looser = scene.build("select.min_identity=0.39")
    assert [key for key in scene.ran if key.startswith(("edit/", "score/"))] == []
    assert {key for key in scene.ran if key.startswith("select/")} == {f"select/{style}" for style in STYLES}
    stricter = scene.build("select.min_identity=0.5")
    more = set(attempts(scene.ran))
    assert more  # stricter, so that more attempts are needed ...
    assert not more & made  # ... and only those are made
    assert not [key for key in scene.ran if key.startswith("edit/") and not Partition.parse(key).attempt]
    assert all(kept(plan, style) >= 17 for plan in (looser, stricter) for style in STYLES)


def test_back_to_the_old_threshold_everything_is_there(scene: Scene) -> None:
    made = digests(scene.build())
    scene.build("select.min_identity=0.5")
    assert digests(scene.build()) == made
    assert scene.ran == []


def test_used_up_attempts_stop_the_style_and_say_how_to_take_what_there_is(scene: Scene) -> None:
    with pytest.raises(UserError) as caught:
        scene.build("select.keep=40", "select.attempts=2")
    text = str(caught.value)
    assert "fewer than select.keep" in text
    assert "attempt 0: " in text
    assert "attempt 1: " in text
    scene.styles = [next(style for style in STYLES if f"style {style} keeps" in text)]
    number = text.split("--set select.keep=")[1].split()[0]
    assert kept(scene.build(f"select.keep={number}", "select.attempts=2"), *scene.styles) == int(number)
    assert [key for key in scene.ran if key.startswith("edit/")] == []


def test_the_yield_floor_stops_a_style_before_any_attempt(scene: Scene) -> None:
    with pytest.raises(UserError, match=r"less than select\.min_yield"):
        scene.build("select.min_identity=0.95")
    assert attempts(scene.ran) == []


def test_nothing_is_collected_that_a_topped_up_plan_counts_on(scene: Scene) -> None:
    built = scene.build()
    (dataset,) = built.by_stage["dataset"]
    assert dataset.entry is not None
    publish(scene.root, built.catalog.folder(dataset.entry))  # what was made before it is no longer recent
    waste = find_waste(Store(scene.root), [scene.plan()], last=3)
    assert [item.name for item in waste.items] == []
    catalog = Catalog(Store(scene.root))
    asking = [entry for style in STYLES for entry in catalog.history(f"select/{style}") if entry.more]
    assert asking  # without them no plan would know of the attempts


def test_an_attempt_is_of_training_portraits_with_new_seeds_and_then_other_prompts() -> None:
    people, book = portraits(0), {**BOOK, "style": "zombie"}
    rounds = [plan_edits(people, book, EditSettings(), attempt) for attempt in range(5)]
    assert len(rounds[0]) == 8
    assert all({each.split for each in again} == {"train"} and len(again) == 6 for again in rounds[1:])
    every = [each for again in rounds for each in again]
    assert len({each.seed for each in every}) == len({each.key for each in every}) == len(every)
    by_portrait = [{each.portrait_id: each.prompt for each in again if each.split == "train"} for again in rounds]
    assert by_portrait[0] == by_portrait[1]
    assert by_portrait[2] == by_portrait[3]
    assert all(by_portrait[0][who] != by_portrait[2][who] != by_portrait[4][who] for who in by_portrait[0])


@contextmanager
def run_of(scene: Scene, plan: Plan, only: list[str] | None = None) -> Iterator[FlowRun]:
    """A run that has come to the first selection."""
    tracker = Tracker(scene.root, plan.settings, "build-dataset")
    tracker.begin()
    about = ActiveRun("build-dataset", "demo", str(scene.root), None, tracker.run_id, None)
    recording = Recording(plan, tracker, ActiveNote(scene.root / "active.json", about))
    with Workers(plan.settings.run) as workers:
        run = FlowRun(plan, recording, FanOut(workers, scene.root), only)
        for name in ("portraits", "align", "prompts", "edit", "score", "select"):
            run.stage(name)
        yield run


def quick_plan(scene: Scene) -> Plan:
    stages = [dataclasses.replace(stage, run=QUICK.get(stage.name, list_inputs)) for stage in STAGES]
    return make_plan(stages, load_settings("demo", SHORT), Store(scene.root), STYLES, BLOCKS, weights_of, source=SOURCE)


def test_a_run_tops_up_and_tells_the_funnel(scene: Scene, mlflow_uri: str) -> None:
    plan = quick_plan(scene)
    with run_of(scene, plan) as run:
        assert run.results["select"].tally.asking == len(STYLES)
        run.top_up("edit", "score", "select")
        run.stage("teach")
        outcome = run.conclude()
    made = digests(plan)
    assert outcome["partitions_run"] == len(made)  # every one once; a selection that asked for more is not counted
    assert digests(quick_plan(scene)) == made
    metrics = run.tracker.client.get_run(run.tracker.run_id).data.metrics
    assert metrics["count/funnel.zombie.kept"] >= 17
    assert metrics["count/funnel.zombie.made"] > len(BLOCKS) * 7
    assert "funnels.json" in [artifact.path for artifact in run.tracker.client.list_artifacts(run.tracker.run_id)]


def test_a_run_that_may_make_one_style_makes_the_attempts_of_that_style(scene: Scene, mlflow_uri: str) -> None:
    plan = quick_plan(scene)
    listed = [key for key, step in plan.steps.items() if step.partition.style in (None, "zombie")]
    with run_of(scene, plan, listed) as run:
        run.top_up("edit", "score", "select")
    assert plan.steps["select/zombie"].made
    assert {step.partition.style for step in plan.steps.values() if step.made} == {None, "zombie"}
