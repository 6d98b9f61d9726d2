"""The ablations: which arms there are, and what their page says of them."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_catalog.config.errors import UserError
from data_catalog.config.settings import AdaptSettings, RunSettings, Settings
from data_catalog.config.styles import list_styles
from data_catalog.workspace import Workspace
from flows.lab.ablate import gather_styles
from tasks.adaptation import adapt
from tasks.evaluation.stopwatch import device_clock
from tasks.lab import ablation
from tasks.lab.ablation import ARM, BASE, FEW_STYLES, PAIRS, USUAL_PAIRS, Arm, draw_styles, list_arms
from tasks.lab.ablation_page import LOOKS_PICTURE, PAGE, PICTURE, Result, write_page
from tasks.pictures.sheets import write_png

KNOWN = [f"style-{n}" for n in range(12)]
SETTINGS = Settings(adapt=AdaptSettings(seconds=10, looks_s=(2.0,)))


def test_the_arms_are_those_of_both_tables_each_once() -> None:
    novel, bases = draw_styles(KNOWN, None)
    assert [len(base) for base in bases] == list(FEW_STYLES)
    assert novel not in bases[-1]
    assert set(bases[0]) < set(bases[1]) < set(bases[2])
    arms = list_arms(bases, 3)
    assert len(arms) == len(set(arms)) == 3 * (len(FEW_STYLES) + len(PAIRS) - 1)
    assert Arm(10, 50, 2) in arms


def test_the_paper_s_bases_have_3_10_and_20_styles_and_learn_the_golden_statue_held_out() -> None:
    workspace = Workspace.open("paper")
    settings = workspace.settings
    assert "golden-statue" not in list_styles(settings)
    assert len(list_styles(settings)) == 20
    known = gather_styles(workspace).known
    novel, bases = draw_styles(known, settings.prompts.held_out[0])
    assert novel == "golden-statue"
    assert [len(base) for base in bases] == [3, 10, 20]
    assert bases[-1] == list_styles(settings)
    largest = [arm for arm in list_arms(bases, 1) if arm.styles == 20]
    assert [arm.pairs for arm in largest] == [10, 2, 5, 20, 50]
    assert settings.adapt.looks_s == (6, 10, 60, 120, 300)
    assert settings.adapt.mirror is False


def test_an_arm_on_a_gpu_is_timed_by_the_wall_with_the_device_synchronised(monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", synchronised.append)
    clock = device_clock("cuda:0")
    before, worked = clock(), time.process_time()
    time.sleep(0.05)
    assert clock() - before >= 0.05 > time.process_time() - worked
    assert synchronised == ["cuda:0", "cuda:0"]
    device_clock("cpu")()
    assert len(synchronised) == 2
    clocks: list[object] = []
    monkeypatch.setattr(adapt, "run", lambda work, clock=None: clocks.append(clock))
    for device in ("cuda", "cpu"):
        work = SimpleNamespace(settings=Settings(run=RunSettings(device=device)))
        ablation.run(work)  # type: ignore[arg-type]
    assert clocks == [None, time.process_time]  # None: of the device


def test_a_style_that_is_named_is_in_no_base_and_a_small_world_has_smaller_bases() -> None:
    novel, bases = draw_styles(KNOWN[:8], "style-3")
    assert novel == "style-3"
    assert [len(base) for base in bases] == [3, 6, 7]
    assert all("style-3" not in base for base in bases)
    with pytest.raises(UserError, match="no style 'nothing'"):
        draw_styles(KNOWN, "nothing")
    with pytest.raises(UserError, match="too few styles"):
        draw_styles(KNOWN[:3], None)


def test_what_an_ablation_trains_is_not_among_the_students_of_the_store() -> None:
    assert (BASE.name, ARM.name) == ("base", "arm")
    assert {need.stage for need in ARM.needs} == {"pairs", "dataset", "base"}
    assert BASE.run.__module__ == "tasks.distill"


def results(folder: Path, lpips: dict[tuple[int, int], float]) -> list[Result]:
    """Three seeds of each arm; its LPIPS at the end, by styles and pairs, spread a little by the seed."""
    for name in (adapt.PICTURE, adapt.LOOKS):
        write_png(folder / name, np.zeros((8, 8, 3), np.uint8))
    made = []
    for seed in range(3):
        for (styles, pairs), end in lpips.items():
            points = zip((0.0, 2.0, 10.0), (2.0, (2.0 + end) / 2, end + 0.01 * seed), strict=True)
            curve = [{"seconds": second, "lpips": value} for second, value in points]
            metrics = {"gain": 1 - end / 2, "old_loss": 0.01, "iterations": 40.0}
            made.append(Result(Arm(styles, pairs, seed), curve, metrics, 8, folder, SETTINGS))
    return made


def page(folder: Path, lpips: dict[tuple[int, int], float]) -> tuple[str, dict[str, list[str]]]:
    bases = [KNOWN[:3], KNOWN[:6]]
    document = write_page(folder, "stillroom ablate", "novel", bases, SETTINGS, results(folder, lpips))
    assert (folder / PICTURE).is_file()
    assert f"]({LOOKS_PICTURE})" in (folder / PAGE).read_text(encoding="utf-8")
    assert (folder / LOOKS_PICTURE).is_file()
    return (folder / PAGE).read_text(encoding="utf-8"), document


def test_a_trend_is_called_reproduced_only_where_every_seed_has_it(tmp_path: Path) -> None:
    better = {(3, USUAL_PAIRS): 1.6, (6, USUAL_PAIRS): 1.2, (6, 2): 1.5, (6, 50): 1.0}
    text, document = page(tmp_path, better)
    assert [trend.partition(":")[0] for trend in document["trends"]] == ["Reproduced", "Reproduced"]
    assert "1.610 ± 0.010" in text
    assert "from 1.510 with 2 to 1.010 with 50 pairs; 50 are better than 2 in 3 of 3 seeds" in text
    assert "| 3 | 2.000 ± 0.000 |" in text
    worse = {(3, USUAL_PAIRS): 1.2, (6, USUAL_PAIRS): 1.6, (6, 2): 1.1, (6, 50): 1.0}
    text, document = page(tmp_path, worse)
    assert document["trends"][0].startswith("Not reproduced, the other way round: ")
    assert document["trends"][1].startswith("Reproduced from end to end, not at every step between: ")
    assert all(trend in text for trend in document["trends"])
