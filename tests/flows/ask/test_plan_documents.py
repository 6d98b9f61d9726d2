"""Documents and effects of `plan`, `why` and `accept`, on the real stages as declared."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_catalog.config.profiles import load_settings
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from data_catalog.workspace import Workspace
from flows.ask.plan import describe_plan, stage_rows, tell_work
from flows.ask.price import Price, Prices, tell_price
from flows.ask.styles import describe_styles
from flows.ask.why import accept_stage, explain_partition
from flows.ask.work import SHAPES, WORK, work_of
from flows.care.status import describe_status
from flows.cli.care import status_table
from flows.cli.screen import plain_console
from flows.cli.styles import styles_table
from tasks.baselines.methods import STAGES as METHOD_STAGES
from tasks.stages import STAGES
from tests.tasks.test_what_runs_again import change_a_helper
from tests.worlds.declared import BY_NAME, Workshop

STEPS = load_settings("demo").edit.steps  # of the profile, which these tests change

SECONDS = 4.0  # that each past edit took


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Each past partition took four seconds on a CPU, an edit made two samples in them."""
    shop = Workshop(tmp_path_factory.mktemp("built"))
    shop.build()
    for stage in ("edit", "teach", "distill"):
        set_past(shop, stage, seconds=SECONDS)
    return shop


@pytest.fixture
def shop(built: Workshop, tmp_path: Path) -> Workshop:
    copy = Workshop(tmp_path)
    shutil.copytree(built.root, copy.root)
    copy.styles = built.styles  # its path is a setting
    return copy


def set_past(shop: Workshop, stage: str = "edit", **values: Any) -> None:
    store = Store(shop.root)
    for step in shop.plan().by_stage[stage]:
        assert step.near is not None
        record = store.find(step.partition, step.near.fingerprint)
        assert record is not None
        for name, value in values.items():
            setattr(record, name, value)
        store.write_record(record)
    shop.plan().save()


def price(shop: Workshop, stage: str, state: str = "run", **options: object) -> Price:
    return Prices(shop.plan(**options)).price(BY_NAME[stage], state)


def test_the_price_comes_from_past_records_on_this_kind_of_device(shop: Workshop) -> None:
    shop.overrides = ["edit.seed=7", "run.workers=2"]
    found = price(shop, "edit")
    assert (found.partitions, found.samples, found.seconds, found.scaled) == (4, 8, 4 * SECONDS / 2, ())
    past = [step.near.bytes for step in shop.plan().by_stage["edit"] if step.near]
    assert found.bytes == sum(past)
    assert price(shop, "score") == Price()
    assert price(shop, "score", "maybe").samples == 8
    set_past(shop, device="cuda")
    assert price(shop, "edit").unknown == ("edit",)
    shop.overrides = [*shop.overrides, "run.device=cuda:1"]
    assert price(shop, "edit").seconds == 4 * SECONDS / 2


WORK_OF_SETTINGS = [  # setting, and how many times as long its stage may take
    (f"edit.steps={10 * STEPS}", 4.0, 10.0),
    ("edit.image_guidance_scale=1.5", 1.1, 1.5),  # three predictions a step instead of two
    ("edit.guidance_interval=[0.0,0.5]", 0.7, 0.9),
    ("edit.prompts_per_portrait=2", 2.0, 2.0),
    ("edit.batch_size=4", 1.0, 1.0),
    ("prompts.train=21", 2.0, 2.0),
    ("teach.views=8", 2.0, 3.0),
    ("distill.iterations=14000", 10.0, 35.0),
    ("distill.triplane_iterations=0", 1.5, 3.0),
    ("distill.batch_size=16", 2.0, 2.0),
    ("distill.views_per_sample=3", 1.2, 2.0),
    ("distill.prompt_encoder=learn", 1.05, 1.3),
    ("distill.teacher=online", 1.5, 3.0),
    ("distill.micro_batch=2", 1.0, 1.0),
    ("distill.memory_mb=100", 1.0, 1.0),
    ("evaluate.timing_repeats=15", 3.5, 4.0),
    ("evaluate.timed_editor_steps=200", 1.8, 2.0),
    ("evaluate.novel_views=20", 1.01, 1.3),
]
BY_COUNT = ("edit.prompts_per_portrait=2", "prompts.train=21")  # more samples, each as before


def test_the_price_grows_with_the_settings_that_drive_the_work(shop: Workshop) -> None:
    before = {}
    for stage in ("edit", "prompts", "teach", "distill", "evaluate"):
        set_past(shop, stage, seconds=SECONDS)
        shop.overrides = ["run.workers=1", f"{stage}.seed=7"]
        before[stage] = price(shop, stage)
        assert before[stage].scaled == ()
    for change, low, high in WORK_OF_SETTINGS:
        stage = change.partition(".")[0]
        shop.overrides = ["run.workers=1", f"{stage}.seed=7", change]
        found = price(shop, stage)
        assert low <= found.seconds / before[stage].seconds <= high, change
        assert found.scaled == (() if change in BY_COUNT or high == 1.0 else (stage,)), change


def test_disk_and_time_follow_what_is_stored_and_the_portraits_area(shop: Workshop) -> None:
    shop.overrides = ["run.workers=1", "teach.seed=7"]
    before = price(shop, "teach")
    for change, seconds, size in (
        ("align.size=128", 4.0, 4.0),
        ("teach.triplane=none", 1.0, 0.17),
        ("teach.triplane=q8", 1.0, 0.58),
        ("teach.view_format=jpg", 1.0, 0.92),
    ):
        shop.overrides = ["run.workers=1", "teach.seed=7", change]
        found = price(shop, "teach")
        each = found.samples / before.samples
        assert found.seconds / before.seconds / each == pytest.approx(seconds), change
        assert found.bytes / before.bytes / each == pytest.approx(size, abs=0.02), change
        assert found.scaled == ("teach",)


# Settings that stages read and that take no time: seeds, limits, rates, and where something comes from.
FREE = {
    "portraits": "val_fraction test_fraction seeds",
    "align": "min_confidence max_reprojection faces min_face_px max_blur size",  # the size counts as an area
    "prompts": "train test seed",  # numbers of samples
    "edit": "prompts_per_portrait seed",  # likewise
    "score": "constant_std align",
    "select": "*",  # it reads tables
    "teach": "yaw_range pitch_range fov_range center_range seed",
    "dataset": "*",
    "distill": "lr lr_transformer lr_end_fraction weight_decay betas clip_norm ema_decay warmup lambda_2d lambda_3d "
    "image_l2_weight triplane_weight depth_weight changed_weight image_prompt_fraction log_every seed world",
    "evaluate": "max_samples_per_style samples view_yaw view_pitch seed world",
    "baseline": "portraits seed invert_rate tune_rate lpips_weight styleclip_rate live3d_rate styleclip_leash "
    "styleclip_identity nada_rate views captions world",
}


class Watched(dict[str, Any]):
    """Settings that note which of them were asked for."""

    def __init__(self, read: Mapping[str, Any]) -> None:
        super().__init__((name, Watched(value) if name == "baselines" else value) for name, value in read.items())
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.asked.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)

    def items(self) -> Any:
        self.asked |= {name for name in self if name.endswith("_steps")}
        return super().items()


def test_every_setting_that_a_stage_reads_is_counted_or_known_to_cost_nothing() -> None:
    assert {stage.name for stage in STAGES} == {*WORK}
    for stage in (*STAGES, *METHOD_STAGES.values()):
        work, free = work_of(stage.name), FREE[stage.name.partition("/")[0]].split()
        read = Watched(stage.reads(load_settings("demo"), Partition(stage.name, "zombie", 0)))
        work.count(read, 1)
        if work.bytes is not None:
            work.bytes(read, SHAPES["embedded"])
        own = read.get("baselines", Watched({}))
        missing = {*read, *own} - read.asked - own.asked - {*work.unlike, *free}
        assert not missing or free == ["*"], f"{stage.name}: {missing}"


def test_every_step_of_another_system_counts(shop: Workshop) -> None:
    for stage in METHOD_STAGES.values():
        read = stage.reads(load_settings("demo"), Partition(stage.name, "zombie"))
        for name in read["baselines"]:
            if name.endswith(("_steps", "_batch")):
                more = {**read, "baselines": {**read["baselines"], name: 10 * read["baselines"][name]}}
                assert work_of(stage.name).count(more, 1) > 1.2 * work_of(stage.name).count(read, 1)
            if name.endswith("_enough"):
                sooner = {**read, "baselines": {**read["baselines"], name: 0.5}}
                assert work_of(stage.name).same_kind(read, read)
                assert not work_of(stage.name).same_kind(read, sooner)


def test_a_sum_says_how_much_may_run_and_what_is_guessed() -> None:
    run, most = Price(3, 9, 42.4, 1_200_000), Price(5, 15, 300.0, 2_500_000, scaled=("edit",), unknown=("teach",))
    assert tell_price(Price(), Price()) is None
    assert tell_price(run, run) == "to run: 3 partitions, about 42 s, 1.2 MB"
    assert tell_price(run, most) == (
        "to run: 3 partitions, about 42 s, 1.2 MB; at most 5 partitions, ~5 min, 2.5 MB (~ edit: measured with other "
        "settings, scaled by their work; without teach: never run on this kind of device)"
    )
    fresh = Price(3, 9, unknown=("edit", "teach"))
    assert tell_price(fresh, fresh) == (
        "to run: 3 partitions (time not known before a first run on this kind of device)"
    )


def test_the_work_of_a_flow_is_that_of_its_own_stages(shop: Workshop) -> None:
    own = ("portraits", "align", "prompts", "edit", "score", "select", "teach", "dataset")
    assert tell_work(shop.plan(), own) is None
    shop.overrides = ["run.workers=1", "edit.seed=7"]
    for stages, count, most in ((own, 5, 15), ([stage.name for stage in STAGES], 6, 17)):
        told = tell_work(shop.plan(), stages)
        assert told is not None
        assert (f"to run: {count} partitions, about " in told, f"; at most {most} partitions, " in told) == (True, True)


def test_records_of_another_kind_are_told_and_the_last_that_are_taken(shop: Workshop) -> None:
    shop.overrides = ["run.workers=1", "edit.scheduler=euler"]
    assert price(shop, "edit").scaled == ("edit",)
    shop.build(until="edit")
    set_past(shop, seconds=3 * SECONDS)
    shop.overrides = [*shop.overrides, "edit.seed=7", f"edit.steps={2 * STEPS}"]
    slower = price(shop, "edit").seconds
    assert slower > 4 * 3 * SECONDS  # the newer kind's, with more steps
    shop.weights = {"editor": "others"}
    assert price(shop, "edit").scaled == ("edit",)


def test_the_start_of_a_worker_is_paid_once(shop: Workshop) -> None:
    plan, store = shop.plan(), Store(shop.root)
    step = plan.by_stage["edit"][0]
    assert step.entry is not None
    record = plan.catalog.read(step.entry)
    record.seconds = SECONDS + 60.0
    store.write_record(record)
    shop.plan().save()
    shop.overrides = ["run.workers=1", "edit.seed=7"]
    assert price(shop, "edit").seconds == 4 * SECONDS + 60.0


def test_records_with_the_present_settings_are_asked_first(shop: Workshop) -> None:
    shop.overrides = ["edit.steps=40"]
    shop.build(until="edit")
    set_past(shop, seconds=10 * SECONDS)
    shop.overrides = ["run.workers=1"]
    assert price(shop, "edit", force=["edit/zombie/0000"]).seconds == SECONDS
    shop.overrides = ["run.workers=1", "edit.steps=40"]
    assert price(shop, "edit", force=["edit/zombie/0000"]).seconds == 10 * SECONDS


def test_a_new_style_costs_what_the_others_did(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    fresh = price(shop, "edit")
    assert (fresh.partitions, fresh.samples, fresh.unknown) == (4, 8, ("edit",))
    shop.build()
    set_past(shop, seconds=SECONDS)
    shop.add_style("neon")
    shop.overrides = ["run.workers=1"]
    found = price(shop, "edit")
    assert (found.partitions, found.samples, found.seconds) == (2, 4, 2 * SECONDS)


def test_tokens_of_a_language_model_come_from_what_it_used_before(shop: Workshop) -> None:
    shop.overrides = ["prompts.backend=openai"]
    guessed = price(shop, "prompts").llm_tokens
    assert 500 < guessed < 2000
    set_past(shop, "prompts", samples=13)
    for step in shop.plan().by_stage["prompts"]:
        assert step.near is not None
        folder = shop.plan().catalog.folder(step.near)
        answers = [{"tokens_in": 50, "tokens_out": 20}, {"tokens_in": 20, "tokens_out": 10}]
        (folder / "llm.json").write_text(json.dumps(answers))
    assert price(shop, "prompts").llm_tokens == 200
    shop.overrides = ["prompts.backend=openai", "prompts.train=21"]
    assert price(shop, "prompts").llm_tokens == 400
    shop.overrides = []
    assert price(shop, "prompts").llm_tokens == 0


@pytest.fixture
def own_code(tmp_path: Path) -> Workshop:
    shop = Workshop(tmp_path)
    shop.copy_code()
    shop.build()
    return shop


def as_commands(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the functions behind the commands plan with this workshop's code and settings."""
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    monkeypatch.setattr("flows.ask.why.open_plan", lambda settings, root: shop.plan())


def test_accept_blesses_what_the_last_code_made_and_nothing_older(
    own_code: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = own_code
    as_commands(shop, monkeypatch)
    shop.overrides = ["teach.views=3"]
    shop.build()  # records by the first code, which the second changes for good
    shop.overrides = []
    change_a_helper(shop, "2")
    assert "teach/zombie/0000" in shop.build()
    (shop.styles / "zombie.txt").rename(shop.styles / "zombie.off")
    change_a_helper(shop, "3")  # a refactoring of the second code
    assert shop.plan().steps["teach/red-hair/0000"].state == "run"
    outcome = accept_stage("teach", Workspace.open())
    assert outcome["accepted"] == 4, "also those of a style that has no file now"
    assert outcome["changed"][0].startswith("code models.three_d.segformer.MixMlp.forward: ")
    assert shop.plan().steps["teach/red-hair/0000"].state == "cached"
    (shop.styles / "zombie.off").rename(shop.styles / "zombie.txt")
    assert shop.plan().steps["teach/zombie/0001"].state == "cached"
    assert shop.plan().steps["dataset/all"].state == "run", "only the stage that was named"
    shop.overrides = ["teach.views=3"]
    assert shop.plan().steps["teach/red-hair/0000"].state == "run", "the first code's bytes were never vouched for"
    assert accept_stage("dataset", Workspace.open())["accepted"] == 1


def test_why_names_every_input_then_and_now(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    as_commands(shop, monkeypatch)
    shop.overrides, shop.weights = ["edit.steps=7"], {"editor": "others"}
    told = explain_partition("edit/zombie/0001", Workspace.open())
    assert told["state"] == "run"
    assert told["changed"] == [
        {"what": "setting steps", "then": str(STEPS), "now": "7"},
        {"what": "weights editor", "then": "weights of e", "now": "others"},
    ]
    inputs = {row["what"]: row for row in told["inputs"]}
    named = {"stage version", "setting steps", "setting seed", "upstream align/0001", "upstream prompts/zombie", "code"}
    assert named <= inputs.keys()
    assert {what for what, row in inputs.items() if not row["same"]} == {"setting steps", "weights editor"}
    assert told["compared_with"]["seconds"] == SECONDS
    assert Path(told["compared_with"]["folder"]).is_dir()
    later = explain_partition("score/zombie/0001", Workspace.open())
    assert (later["state"], later["changed"][0]["what"]) == ("maybe", "upstream edit/zombie/0001 runs")
    (unknown,) = [row for row in later["inputs"] if row["what"] == "upstream edit/zombie/0001"]
    assert unknown["now"] == "(not known yet)"


def test_an_experiment_is_no_reason_for_what_runs_next(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    shop.publish()
    shop.overrides = ["edit.steps=8"]
    shop.build()
    own = ["portraits.count=4", "portraits.block_size=2", f"prompts.styles_dir={shop.styles}"]
    workspace = Workspace.open("demo", [*own, "edit.steps=50"])
    edit = f"setting steps: {STEPS} -> 50"
    rows = {row["stage"]: row["reasons"] for row in describe_plan("demo", workspace.overrides)["stages"]}
    assert edit in rows["edit"][0]
    assert rows["dataset"][0] == f"setting recipe.edit.steps: {STEPS} -> 50"
    assert rows["evaluate"][0] == f"setting edit.steps: {STEPS} -> 50"
    told = explain_partition("edit/zombie/0000", workspace)
    assert told["changed"][0] == {"what": "setting steps", "then": str(STEPS), "now": "50"}


def test_a_failed_style_says_so_in_styles_plan_and_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Workshop(tmp_path)
    shop.build(until="score")
    plan, said = shop.plan(), "style zombie keeps 0% of its samples"
    for step in plan.by_stage["prompts"]:
        assert step.entry is not None
        (plan.catalog.folder(step.entry) / "prompts.json").write_text('{"train": [], "test": []}')
    for job in plan.resolve("select"):
        if job.partition.style == "zombie":
            plan.fail(job.partition, f"{said}\n  hint  loosen a gate")
    plan.save()
    for place in ("styles", "why"):
        monkeypatch.setattr(f"flows.ask.{place}.open_plan", lambda settings, root: shop.plan())
    monkeypatch.setattr("flows.care.status.open_plan", lambda settings, root: shop.plan())
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    workspace = Workspace.open("demo", [f"prompts.styles_dir={shop.styles}"])
    listed = describe_styles(workspace)
    rows = {row["style"]: row for row in listed["styles"]}
    assert (rows["zombie"]["state"], rows["zombie"]["problem"]) == ("failed", f"select/zombie: {said}")
    assert (rows["red-hair"]["state"], rows["red-hair"]["problem"]) == ("outdated", None)
    assert explain_partition("select/zombie", workspace)["changed"][0]["what"] == f"failed: {said}"
    (row,) = [row for row in stage_rows(shop.plan()) if row["stage"] == "select"]
    assert (row["run"], row["failed"], row["reasons"]) == (2, 1, ["new", f"failed: {said}"])
    status = describe_status(workspace)
    assert status["failed"] == {"select/zombie": said}
    for table, document in ((styles_table, listed), (status_table, status)):
        screen = io.StringIO()
        table(document, plain_console(file=screen, width=80))
        assert f"failed: select/zombie: {said}\n" in screen.getvalue()


def test_plan_lists_every_partition_when_asked(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    overrides = ["portraits.count=4", "portraits.block_size=2", f"prompts.styles_dir={shop.styles}"]
    document = describe_plan("demo", overrides, ["edit/zombie"], partitions=True)
    listed = {row["partition"]: row for row in document["partitions"]}
    assert len(listed) == sum(row["partitions"] for row in document["stages"])
    assert Partition("edit", "zombie", 1).key in listed
    assert "forced" in listed["edit/zombie/0001"]["reasons"]
    assert "forced" not in listed["edit/red-hair/0001"]["reasons"]
    for row in document["stages"]:
        assert row["price"]["partitions"] == row["run"]
    total = sum(row["price"]["samples"] for row in document["stages"])
    assert document["estimate"]["samples"] == total > 0
    assert document["at_most"]["partitions"] == sum(row["run"] + row["maybe"] for row in document["stages"])
    assert "partitions" not in describe_plan("demo", overrides)
