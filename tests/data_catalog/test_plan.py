"""Reruns and their reasons: a small workflow of real stages with real functions."""

import json
import multiprocessing
import pickle
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from data_catalog.care.verify import note_damage, verify
from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.plan.plan import Plan, make_plan
from data_catalog.store.execute import Job, execute
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Summary
from data_catalog.store.stage import Need, Partition, Stage, Work
from data_catalog.store.store import RECORD, Store, read_record

# portraits (block) -> edit (style, block) -> select (style) -> teach (style, block; part of select) -> all


def make_portraits(work: Work) -> Summary:
    numbers = [work.settings.portraits.seed + 10 * (work.partition.block or 0) + n for n in range(3)]
    (work.folder / "images").mkdir()
    for number in numbers:
        (work.folder / "images" / f"{number}.txt").write_text(f"portrait {number % 100}")
    return Summary(samples=3)


def make_edit(work: Work) -> Summary:
    if (work.folder.parents[3] / "poison").exists() and work.partition.block == 1:
        raise ValueError("poisoned")
    portraits = sorted((work.input("portraits").folder / "images").iterdir())
    prompt = work.sources["style"].read_text()
    lines = [f"{path.read_text()} {prompt.strip()} {work.settings.edit.steps}" for path in portraits]
    (work.folder / "edit.json").write_text(json.dumps(lines))
    return Summary(samples=len(lines))


def make_select(work: Work) -> Summary:
    kept = {}
    for made in work.inputs["edit"]:
        lines = json.loads((made.folder / "edit.json").read_text())
        # Only the second block has a sample that the quantile can take away.
        keep = lines[1:] if made.partition.block == 1 and work.settings.select.quantile > 0.1 else lines
        kept[f"{made.partition.block:04d}"] = keep
    (work.folder / "select.json").write_text(json.dumps(kept))
    parts = {block: digest_json(keep) for block, keep in kept.items()}
    return Summary(samples=sum(map(len, kept.values())), parts=parts)


def make_teach(work: Work) -> Summary:
    kept = json.loads((work.input("select").folder / "select.json").read_text())
    (work.folder / "shard").write_text("\n".join(kept[f"{work.partition.block:04d}"]))
    return Summary(samples=len(kept))


def make_dataset(work: Work) -> Summary:
    digests = {made.partition.key: made.digest for made in work.inputs["teach"]}
    (work.folder / "dataset.json").write_text(json.dumps(digests, sort_keys=True))
    return Summary(samples=len(digests))


def style_source(settings: Settings, partition: Partition) -> dict[str, Path]:
    return {"style": Path(settings.prompts.styles_dir) / f"{partition.style}.txt"}


STAGES = (
    Stage("portraits", 1, make_portraits, ("block",), reads=lambda s, p: {"seed": s.portraits.seed}),
    Stage(
        "edit",
        1,
        make_edit,
        ("style", "block"),
        needs=(Need("portraits"),),
        reads=lambda s, p: {"steps": s.edit.steps, "guidance": (s.edit.guidance_scale, 1)},
        sources=style_source,
        models=lambda s: ("editor",),
    ),
    Stage(
        "select",
        1,
        make_select,
        ("style",),
        needs=(Need("edit"),),
        reads=lambda s, p: {"quantile": s.select.quantile},
    ),
    Stage(
        "teach",
        1,
        make_teach,
        ("style", "block"),
        needs=(Need("edit"), Need("select", part=True)),
        models=lambda s: ("teacher",),
    ),
    Stage("dataset", 1, make_dataset, (), needs=(Need("teach"),)),
)
ALL = {"portraits": 3, "edit": 6, "select": 2, "teach": 6, "dataset": 1}


class World:
    """A data root, style files and settings, to change one at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root / "data"
        self.styles = root / "styles"
        self.styles.mkdir(parents=True)
        self.add_style("zombie")
        self.add_style("red-hair")
        self.weights = {"editor": "e1", "teacher": "t1"}
        self.stages = STAGES
        self.changes: dict[str, dict[str, object]] = {}
        self.on_code_change = "rerun"

    def add_style(self, slug: str) -> None:
        (self.styles / f"{slug}.txt").write_text(f"Turn it into {slug}\n")

    def plan(self, **options: object) -> Plan:
        sections = {**self.changes, "prompts": {"styles_dir": str(self.styles)}}
        settings = Settings.model_validate({**sections, "on_code_change": self.on_code_change})
        slugs = [path.stem for path in self.styles.glob("*.txt")]
        store = Store(self.root)
        return make_plan(self.stages, settings, store, slugs, [0, 1, 2], self.weights.__getitem__, **options)

    def build(self, **options: object) -> dict[str, list[str]]:
        """Build, and return what ran, by stage."""
        plan, ran = self.plan(**options), {}
        for stage in plan.stages:
            jobs = plan.resolve(stage.name)
            for job in jobs:
                plan.finish(execute(pickle.loads(pickle.dumps(job)), self.root))
            if jobs:
                ran[stage.name] = [job.key for job in jobs]
        plan.save()
        return ran


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def states(plan: Plan) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for step in plan.steps.values():
        by_state = counts.setdefault(step.partition.stage, {})
        by_state[step.state] = by_state.get(step.state, 0) + 1
    return counts


def reasons(plan: Plan, key: str) -> list[str]:
    return [str(reason) for reason in plan.steps[key].reasons]


def test_a_new_store_runs_everything_and_says_new(world: World) -> None:
    plan = world.plan()
    assert states(plan) == {stage: {"run": count} for stage, count in ALL.items()}
    assert {str(reason) for step in plan.steps.values() for reason in step.reasons} == {"new"}
    assert {stage: len(keys) for stage, keys in world.build().items()} == ALL


def test_a_second_plan_says_cached_everywhere_and_writes_nothing(world: World) -> None:
    world.build()
    before = {path: path.stat().st_mtime_ns for path in world.root.rglob("*")}
    assert states(world.plan()) == {stage: {"cached": count} for stage, count in ALL.items()}
    assert before == {path: path.stat().st_mtime_ns for path in world.root.rglob("*")}
    assert world.build() == {}


def test_same_inputs_give_the_same_digests_on_another_path(tmp_path: Path) -> None:
    first, second = World(tmp_path / "a"), World(tmp_path / "far" / "b")
    first.build()
    second.build()
    digests = [{key: step.entry.digest for key, step in w.plan().steps.items() if step.entry} for w in (first, second)]
    assert digests[0] == digests[1]
    assert len(digests[0]) == sum(ALL.values())
    folders = [sorted(p.relative_to(w.root) for p in (w.root / "store").rglob("*")) for w in (first, second)]
    assert folders[0] == folders[1]


def test_one_setting_dirties_its_stage_and_the_dependants_are_maybe(world: World) -> None:
    world.build()
    world.changes = {"edit": {"steps": 21}}
    plan = world.plan()
    assert states(plan) == {
        "portraits": {"cached": 3},
        "edit": {"run": 6},
        "select": {"maybe": 2},
        "teach": {"maybe": 6},
        "dataset": {"maybe": 1},
    }
    assert reasons(plan, "edit/zombie/0000") == ["setting steps: 20 -> 21"]
    assert reasons(plan, "select/zombie") == ["upstream edit/zombie/0000 and 2 more run"]
    ran = {stage: len(keys) for stage, keys in world.build().items()}
    assert ran == {stage: count for stage, count in ALL.items() if stage != "portraits"}


def test_early_cutoff_stops_where_the_digest_is_the_same(world: World) -> None:
    world.build()
    world.changes = {"select": {"quantile": 0.06}}  # a moved threshold that selects the same
    plan = world.plan()
    assert states(plan)["select"] == {"run": 2}
    assert states(plan)["teach"] == {"maybe": 6}
    assert world.build() == {"select": ["select/red-hair", "select/zombie"]}
    assert states(world.plan()) == {stage: {"cached": count} for stage, count in ALL.items()}


def test_a_moved_threshold_teaches_only_the_blocks_whose_selection_changed(world: World) -> None:
    world.build()
    world.changes = {"select": {"quantile": 0.2}}
    assert world.build() == {
        "select": ["select/red-hair", "select/zombie"],
        "teach": ["teach/red-hair/0001", "teach/zombie/0001"],
        "dataset": ["dataset/all"],
    }


def test_dropping_in_one_style_file_runs_only_that_style(world: World) -> None:
    world.build()
    world.add_style("neon")
    plan = world.plan()
    assert states(plan)["dataset"] == {"run": 1}
    assert reasons(plan, "edit/neon/0000") == ["new"]
    ran = world.build()
    assert ran.pop("dataset") == ["dataset/all"]
    assert {key.split("/")[1] for keys in ran.values() for key in keys} == {"neon"}
    assert sum(map(len, ran.values())) == 3 + 1 + 3


def test_removing_a_style_file_makes_the_dataset_again_and_bringing_it_back_nothing(world: World) -> None:
    world.build()
    text = (world.styles / "zombie.txt").read_text()
    (world.styles / "zombie.txt").unlink()
    assert world.build() == {"dataset": ["dataset/all"]}
    (world.styles / "zombie.txt").write_text(text)
    assert world.build() == {}


def test_an_edited_style_file_is_named_as_the_reason(world: World) -> None:
    world.build()
    (world.styles / "zombie.txt").write_text("Make it a zombie\n")
    plan = world.plan()
    assert states(plan)["edit"] == {"run": 3, "cached": 3}
    assert reasons(plan, "edit/zombie/0002")[0].startswith("file style: ")


def test_other_weights_dirty_the_stages_that_use_them(world: World) -> None:
    world.build()
    world.weights["teacher"] = "t2"
    plan = world.plan()
    assert states(plan) == {
        "portraits": {"cached": 3},
        "edit": {"cached": 6},
        "select": {"cached": 2},
        "teach": {"run": 6},
        "dataset": {"maybe": 1},
    }
    assert reasons(plan, "teach/zombie/0001") == ["weights teacher: t1 -> t2"]


def test_a_new_stage_version_runs_that_stage(world: World) -> None:
    world.build()
    select = STAGES[2]
    bumped = Stage(select.name, 2, select.run, select.split_by, select.needs, select.reads)
    world.stages = (*STAGES[:2], bumped, *STAGES[3:])
    plan = world.plan()
    assert reasons(plan, "select/zombie") == ["stage version: 1 -> 2"]
    assert world.build() == {"select": ["select/red-hair", "select/zombie"]}  # same bytes: nothing below it runs


def test_a_lost_file_or_a_truncated_one_runs_again(world: World) -> None:
    world.build()
    plan = world.plan()
    folder = plan.catalog.folder(plan.steps["edit/zombie/0001"].entry)
    (folder / "edit.json").write_text("[]")
    plan = world.plan()
    assert reasons(plan, "edit/zombie/0001")[0].startswith("damaged: edit.json has 2 bytes, not ")
    (folder / "edit.json").unlink()
    assert reasons(world.plan(), "edit/zombie/0001") == ["damaged: edit.json is missing"]
    assert world.build() == {"edit": ["edit/zombie/0001"]}
    assert verify(world.root).damaged == []


def test_a_flipped_byte_is_found_by_verify_and_made_again(world: World) -> None:
    world.build()
    plan = world.plan()
    path = plan.catalog.folder(plan.steps["teach/red-hair/0002"].entry) / "shard"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    (damage,) = verify(world.root).damaged
    assert (damage.partition, damage.file) == ("teach/red-hair/0002", "shard")
    assert "a file is not the one its record describes" in str(damage.error())
    note_damage(world.root, [damage])
    found = "damaged: shard: a file is not the one its record describes"
    assert reasons(world.plan(), "teach/red-hair/0002") == [found]
    assert world.build() == {"teach": ["teach/red-hair/0002"]}
    assert verify(world.root).damaged == []


def test_a_record_that_lies_is_found_by_verify(world: World) -> None:
    world.build()
    plan = world.plan()
    path = plan.catalog.folder(plan.steps["select/zombie"].entry) / RECORD
    path.write_text(path.read_text().replace('"quantile": 0.05', '"quantile": 0.07'))
    assert [damage.problem for damage in verify(world.root).damaged] == [
        "the record's fingerprint is not that of its inputs"
    ]


def test_force_makes_again_exactly_what_it_names(world: World) -> None:
    world.build()
    assert world.build(force=["edit/zombie"]) == {"edit": [f"edit/zombie/{block:04d}" for block in range(3)]}
    assert world.build(force=["select"]) == {"select": ["select/red-hair", "select/zombie"]}
    assert world.build() == {}


def test_a_lost_or_damaged_index_changes_nothing(world: World) -> None:
    world.build()
    index = world.root / "catalog" / "records.parquet"
    index.write_bytes(b"no parquet")
    assert states(world.plan())["teach"] == {"cached": 6}
    index.unlink()
    plan = world.plan()
    assert states(plan)["teach"] == {"cached": 6}
    assert plan.catalog.refresh() == sum(ALL.values())
    assert index.exists()


def test_a_failed_partition_blocks_what_needs_it_and_nothing_else(world: World) -> None:
    world.plan()
    (world.root / "store").mkdir(parents=True)
    (world.root / "store" / "poison").touch()
    plan = world.plan()
    for stage in plan.stages:
        for job in plan.resolve(stage.name):
            try:
                plan.finish(execute(job, world.root))
            except ValueError as error:
                plan.fail(job.partition, str(error))
    assert states(plan) == {
        "portraits": {"done": 3},
        "edit": {"done": 4, "failed": 2},
        "select": {"blocked": 2},
        "teach": {"blocked": 6},
        "dataset": {"blocked": 1},
    }
    plan.save()
    again = world.plan()
    assert (states(again)["edit"], again.steps["edit/zombie/0001"].failure) == ({"cached": 4, "run": 2}, "poisoned")
    assert reasons(again, "edit/zombie/0001") == ["failed: poisoned"]
    world.changes = {"edit": {"steps": 3}}  # other settings have not failed yet
    assert (reasons(world.plan(), "edit/zombie/0001"), states(world.plan())["edit"]) == (["new"], {"run": 6})
    world.changes = {}
    (world.root / "store" / "poison").unlink()
    assert len(world.build()["edit"]) == 2
    assert not world.plan().steps["edit/zombie/0001"].failure
    assert json.loads((world.root / "catalog" / "failed.json").read_text()) == {}
    (world.root / "catalog" / "failed.json").write_text("[")  # a damaged note loses the messages, nothing else
    assert states(world.plan())["edit"] == {"cached": 6}


def test_the_reasons_compare_with_the_nearest_record_then_the_profiles_own_then_the_newest(world: World) -> None:
    made: dict[int, str] = {}
    for steps in (20, 8, 9):
        world.changes = {"edit": {"steps": steps}}
        world.build()
        entry = world.plan().steps["edit/zombie/0000"].entry
        assert entry is not None
        made[steps] = entry.digest
        age_records(world.root, 60)
    world.changes = {"edit": {"steps": 50}}
    assert reasons(world.plan(), "edit/zombie/0000") == ["setting steps: 9 -> 50"]  # all as near: the newest
    own = world.plan(own=lambda catalog, entry: entry.digest == made[20])
    assert reasons(own, "edit/zombie/0000") == ["setting steps: 20 -> 50"]
    assert reasons(own, "select/zombie") == ["upstream edit/zombie/0000 and 2 more run"]
    world.changes = {"edit": {"steps": 8, "guidance_scale": 3.0}}
    own = world.plan(own=lambda catalog, entry: entry.digest == made[20])
    assert reasons(own, "edit/zombie/0000") == ["setting guidance: [7.5, 1] -> [3.0, 1]"]  # nearer than the own one


def test_a_pinned_partition_is_taken_as_it_was(world: World) -> None:
    world.build()
    digest = world.plan().steps["dataset/all"].entry.digest
    world.changes = {"edit": {"steps": 3}}
    assert world.plan(pins={"dataset/all": digest[:8]}).steps["dataset/all"].state == "cached"
    with pytest.raises(UserError, match="has no complete dataset/all with the digest beef"):
        world.plan(pins={"dataset/all": "beef"})


def age_records(root: Path, seconds: float) -> None:
    """Let all records be older, since dates of records are in whole seconds."""
    store = Store(root)
    for folder in store.record_folders():
        record = read_record(folder)
        assert record is not None
        record.created = (datetime.fromisoformat(record.created) - timedelta(seconds=seconds)).isoformat()
        store.write_record(record)


def _execute_in_process(job: Job, root: Path, results: "multiprocessing.Queue[str]") -> None:
    results.put(execute(job, root).created + str(execute(job, root).seconds))


def test_two_processes_in_one_partition_compute_it_once(world: World) -> None:
    (job, *_) = world.plan().resolve("portraits")
    results: multiprocessing.Queue[str] = multiprocessing.Queue()
    both = [multiprocessing.Process(target=_execute_in_process, args=(job, world.root, results)) for _ in range(2)]
    for process in both:
        process.start()
    assert results.get(timeout=300) == results.get(timeout=300)
    for process in both:
        process.join()


def test_planning_imports_no_engine() -> None:
    code = "import sys, data_catalog.plan.plan; print({'torch', 'prefect', 'mlflow', 'dask'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
