"""Gates that a style's own scores set: what they are made from, and the numbers and the plot that stay."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_catalog.config.settings import SelectSettings, Settings
from data_catalog.store.record import Summary
from tasks import select
from tasks.gating.gates import Candidate, Limits
from tests.tasks.test_select import OPEN, row, work_on

QUARTER = {"calibration": "quantile", "quantile": 0.25, "min_identity": 0.0, "max_lpips": 0.0, "min_yield": 0.0}


def ladder(block: int, count: int = 9) -> list[Candidate]:
    """Samples whose identity climbs from 0 to 0.8 and whose LPIPS falls."""
    return [
        row(f"p{block}{i}-zombie-0-0", block=block, score_identity=i / 10, score_lpips=1 - i / 10) for i in range(count)
    ]


def calibrated(**changes: Any) -> SelectSettings:
    return OPEN.model_copy(update={**QUARTER, **changes})


def test_further_blocks_and_attempts_leave_the_limits_as_they_are() -> None:
    settings = calibrated(calibration_blocks=1)
    alone = Limits.of(ladder(0), settings)
    assert alone.gates == {"min_identity": pytest.approx(0.2), "max_lpips": pytest.approx(0.8)}
    again = [replace(each, attempt=1, score_identity=0.9) for each in ladder(0)]
    later = [replace(each, score_identity=-0.9) for each in ladder(1)]
    assert Limits.of([*later, *again, *ladder(0)], settings) == alone
    assert Limits.of([*later, *ladder(0)], calibrated(calibration_blocks=2)) != alone


def chosen(folder: Path, **changes: Any) -> tuple[Path, Summary]:
    folder.mkdir()
    work = work_on(folder, [*ladder(0), *ladder(1)], Settings(select=calibrated(**changes)))
    return work.folder, select.run(work)


def test_the_calibration_stays_as_numbers_and_as_a_plot(tmp_path: Path) -> None:
    folder, summary = chosen(tmp_path / "one", calibration_blocks=1)
    document = json.loads((folder / "calibration.json").read_text())["calibration"]
    assert (document["samples"], document["quantile"]) == (9, 0.25)
    assert list(document["made_from"]) == ["score/zombie/0000"]
    gates = {gate["gate"]: gate for gate in document["gates"]}
    assert gates["min_identity"]["limit"] == pytest.approx(0.2)
    assert gates["min_identity"]["stopped"] == pytest.approx(2 / 9)
    assert gates["max_lpips"]["quantiles"]["0.50"] == pytest.approx(0.6)
    with Image.open(folder / "calibration.png") as plot:
        assert plot.width > 600
    assert summary.rejected["max_lpips"] == 4  # two of each block, by the limits of the first


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [chosen(tmp_path / name)[0] for name in ("one", "two")]
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert first == second
    assert {"calibration.json", "calibration.png"} <= first.keys()


def test_without_calibration_there_is_none(tmp_path: Path) -> None:
    folder, _ = chosen(tmp_path / "one", calibration="none")
    assert not list(folder.glob("calibration.*"))
