"""Arms of experiments: each is made once, whatever is killed or asked again."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import pytest

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from data_catalog.workspace import Workspace
from flows.ask.plan import PlanShape
from flows.lab import arms
from flows.lab.arms import ArmWork, Kept, keep_arm, keep_arms, lock_arm, tell_command

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
    workspace = Workspace.open("demo", [f"distill.seed={seed}"])
    return ArmWork(workspace, {}, lambda _: shape, ["draw", "learn"], {"arm": str(seed)}, False)


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
    MADE.clear()
    with lock_arm(works[1]), lock_arm(works[3]):
        coming = keep_arms("try", works)
        assert next(coming)[0] == 2
    assert [name for name, _ in coming] == [1, 3]
    assert MADE == ["draw 0", "learn 2", "learn 1", "learn 3"]


def share(folder: Path) -> list[int]:
    """Make two arms, each of which is done once both are begun; returns them in the order of their making."""

    def make(experiment: str, work: ArmWork) -> None:
        (folder / work.told["arm"]).touch()
        until = time.monotonic() + 300.0
        while len(list(folder.glob("[12]"))) < 2:
            assert time.monotonic() < until, "the other arm was not begun"
            time.sleep(0.02)

    with mock.patch.dict(os.environ, {"STILLROOM_DATA": str(folder)}), mock.patch.object(arms, "keep_arm", make):
        return [name for name, _ in keep_arms("try", {1: work_of(1), 2: work_of(2)})]


def test_processes_that_start_together_begin_with_different_arms(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        first, second = pool.map(share, [tmp_path, tmp_path])
    assert {first[0], second[0]} == {1, 2}


def test_the_command_on_a_page_can_be_typed_again() -> None:
    assert tell_command("stillroom ablate neon", Workspace.open()) == "stillroom ablate neon"
    told = tell_command("stillroom ablate", Workspace.open("paper", ['prompts.styles=["neon"]']))
    assert told == "stillroom ablate --set 'prompts.styles=[\"neon\"]' --profile paper"
