"""Arms of experiments: each is made once, whatever is killed or asked again."""

from pathlib import Path

import pytest

from data_catalog.settings import Settings, load_settings
from data_catalog.stage import Need, Partition, Stage, Summary, Work
from data_catalog.store import Store
from flows.experiments.arms import ArmWork, Kept, is_at_work, keep_arm, keep_arms, tell_command
from flows.planning.plan import PlanShape, open_plan

MADE: list[str] = []


def draw(work: Work) -> Summary:
    MADE.append(f"draw {work.settings.edit.seed}")
    (work.folder / "drawing.txt").write_text(str(work.settings.edit.seed))
    return Summary(samples=1)


def learn(work: Work) -> Summary:
    MADE.append(f"learn {work.settings.distill.seed}")
    seed = work.settings.distill.seed
    if seed == 13:
        raise KeyboardInterrupt
    (work.folder / "student.txt").write_text(f"{(work.input('draw').folder / 'drawing.txt').read_text()} {seed}")
    return Summary(samples=1, metrics={"loss": 1.0 / (1 + seed)})


def edit_seed(settings: Settings, partition: Partition) -> dict[str, int]:
    return {"seed": settings.edit.seed}


def own_seed(settings: Settings, partition: Partition) -> dict[str, int]:
    return {"seed": settings.distill.seed}


STAGES = (
    Stage("draw", 1, draw, reads=edit_seed, resumes=True),
    Stage("learn", 1, learn, needs=(Need("draw"),), reads=own_seed, resumes=True),
)


def work_of(seed: int) -> ArmWork:
    shape = PlanShape(STAGES, [], [])
    return ArmWork("demo", [f"distill.seed={seed}"], {}, lambda _: shape, ["draw", "learn"], {"arm": str(seed)}, False)


def arm(seed: int) -> Kept:
    return keep_arm("try", work_of(seed))


def test_an_arm_is_made_once_and_names_the_run_that_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_uri: str
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    MADE.clear()
    first = arm(1)
    with pytest.raises(KeyboardInterrupt):
        arm(13)
    second, again = arm(2), arm(1)
    assert MADE == ["draw 0", "learn 1", "learn 13", "learn 2"]
    assert again == first
    assert first.run_id != second.run_id
    assert (first.folder / "student.txt").read_text() == "0 1"
    assert first.metrics == {"loss": 0.5}
    assert first.digests["draw"] == second.digests["draw"]
    assert first.digests["learn"] != second.digests["learn"]


def test_an_arm_that_another_process_makes_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_uri: str
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    works = {seed: work_of(seed) for seed in (1, 2, 3)}
    arm(3)  # so that the drawing is there
    store, learned = Store(tmp_path), Partition("learn")
    plan = open_plan(load_settings("demo", ["distill.seed=1"]), tmp_path, shape=PlanShape(STAGES, [], []))
    fingerprint = plan.steps["learn/all"].fingerprint
    assert fingerprint is not None
    MADE.clear()
    with store.lock(learned, fingerprint):
        assert [is_at_work(work) for work in works.values()] == [True, False, False]
        arms = keep_arms("try", works)
        assert [next(arms)[0], next(arms)[0]] == [2, 3]
    assert not is_at_work(works[1])
    assert [name for name, _ in arms] == [1]
    assert MADE == ["learn 2", "learn 1"]


def test_the_command_on_a_page_can_be_typed_again() -> None:
    assert tell_command("stillroom ablate neon", "demo", []) == "stillroom ablate neon"
    told = tell_command("stillroom ablate", "paper", ['prompts.styles=["neon"]'])
    assert told == "stillroom ablate --set 'prompts.styles=[\"neon\"]' --profile paper"
