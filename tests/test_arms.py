"""Arms of experiments: each is made once, whatever is killed or asked again."""

from pathlib import Path

import pytest

from data_catalog.settings import Settings
from data_catalog.stage import Need, Partition, Stage, Summary, Work
from flows.experiments.arms import Kept, keep_arm, tell_command
from flows.planning.plan import PlanShape

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


def arm(seed: int) -> Kept:
    shape = PlanShape(STAGES, [], [])
    overrides = [f"distill.seed={seed}"]
    return keep_arm("try", "demo", overrides, None, lambda _: shape, ["draw", "learn"], {"arm": str(seed)}, False)


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


def test_the_command_on_a_page_can_be_typed_again() -> None:
    assert tell_command("stillroom ablate neon", "demo", []) == "stillroom ablate neon"
    told = tell_command("stillroom ablate", "paper", ['prompts.styles=["neon"]'])
    assert told == "stillroom ablate --set 'prompts.styles=[\"neon\"]' --profile paper"
