"""The claims: what is compared, how it is judged, and what the page says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from tasks.evaluation.table import STUDENT, TEACHERS
from tasks.lab.claims.arm import TABLE, WHOLE_ARM, picture_name
from tasks.lab.claims.claims import (
    ARMS,
    BOTH,
    CLAIMS,
    NO_2D,
    NO_3D,
    WHOLE,
    Difference,
    areas,
    arms_of,
    claims_of,
    compare,
    judge,
    judge_all,
    judge_speed,
)
from tasks.lab.claims.exam import LIFTED_NO_HIGH, LIFTED_NO_LOW, MOVED, TRUE
from tasks.lab.claims.page import PAGE, Trained, sentence, write_page
from tasks.pictures.sheets import write_png

Row = dict[str, Any]
MEASURES = ("id", "clip", "three_d", "lpips", "depth_error", "silhouette_iou", "psnr_novel", "colours", *MOVED)


def rows(values: Mapping[tuple[int, int], float | None], measure: str = "clip") -> list[Row]:
    """Make a sample for each seed and portrait."""
    return [
        {"seed": seed, "key": f"k{portrait}", "portrait_id": f"p{portrait}", measure: value}
        for (seed, portrait), value in values.items()
    ]


def grid(value: float, seeds: int = 3, portraits: int = 8) -> dict[tuple[int, int], float]:
    """The same value everywhere, but for a spread over the portraits."""
    return {(seed, p): value + 0.3 * p for seed in range(seeds) for p in range(portraits)}


@pytest.mark.parametrize(
    ("low", "high", "claimed", "verdict"),
    [
        (0.1, 0.3, 1, "reproduced"),
        (0.1, 0.3, -1, "opposite"),
        (-0.3, -0.1, -1, "reproduced"),
        (-0.3, -0.1, 1, "opposite"),
        (-0.1, 0.3, 1, "not reproduced"),
        (-0.1, 0.3, -1, "not reproduced"),
        (0.0, 0.3, 1, "not reproduced"),
    ],
)
def test_the_rule_reads_nothing_but_the_interval_and_the_claimed_direction(
    low: float, high: float, claimed: int, verdict: str
) -> None:
    assert judge(Difference((low + high) / 2, low, high), claimed) == verdict


def test_what_was_not_measured_is_called_that_and_never_not_reproduced() -> None:
    unknown = rows(dict.fromkeys(grid(0.0)))
    assert compare(unknown, unknown, "clip") is None
    assert judge(None, 1) == "not measured"
    assert judge_all(["reproduced", "not measured"]) == judge_all(["not measured"] * 2) == "not measured"
    assert sentence("not measured", ["not measured"]).startswith("Not measured: ")
    told = sentence("not measured", ["reproduced", "not measured"])
    assert told == "Not measured as a whole: of 2 measures 1 as the paper says, 1 not measured."


def test_a_world_without_true_heads_offers_the_claims_that_it_can_measure_and_their_arms() -> None:
    known = {claim.number: {test.measure for test in claim.tests} for claim in claims_of("paper")}
    assert set(known) == {1, 3, 4, 6}
    assert not set().union(*known.values()) & {"depth_error", "silhouette_iou", "psnr_novel"}
    assert [arm.name for arm in arms_of("paper")] == [STUDENT, BOTH, NO_2D, WHOLE]  # none without L3D
    assert claims_of("embedded") == CLAIMS
    assert arms_of("embedded") == ARMS


def test_the_paper_s_arms_learn_at_the_profile_s_own_rates() -> None:
    paper = load_settings("paper")
    for arm in arms_of("paper"):
        chosen = load_settings("paper", arm.overrides(0, None, paper)).distill
        changed = {name for name, value in chosen.model_dump().items() if value != getattr(paper.distill, name)}
        assert changed <= {"grid_every", *arm.settings}, arm.name
    demo = load_settings("demo")
    assert load_settings("demo", ARMS[1].overrides(0, None, demo)).distill.iterations == 400


def test_a_claim_is_what_all_of_its_measures_are() -> None:
    assert judge_all(["reproduced", "reproduced"]) == "reproduced"
    assert judge_all(["opposite", "opposite"]) == "opposite"
    assert judge_all(["reproduced", "opposite"]) == "not reproduced"
    assert "1 as the paper says, 1 the other way" in sentence("not reproduced", ["reproduced", "opposite"])


def test_speed_is_reproduced_at_the_papers_number_and_opposite_below_one() -> None:
    assert judge_speed([251.0, 300.0]) == "reproduced"
    assert judge_speed([131.0, 300.0]) == "not reproduced"
    assert judge_speed([0.5, 0.9]) == "opposite"


def test_a_difference_is_taken_pair_by_pair() -> None:
    # The portraits differ by far more than the arms do; only pairs can see it.
    found = compare(rows(grid(1.05)), rows(grid(1.0)), "clip")
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))


def test_what_one_training_shows_alone_is_no_evidence() -> None:
    lucky = {place: value + (0.5 if place[0] == 0 else -0.01) for place, value in grid(1.0).items()}
    found = compare(rows(lucky), rows(grid(1.0)), "clip")
    assert found is not None
    assert found.mean > 0.1
    assert judge(found, 1) == "not reproduced"


def test_pairs_that_one_side_lacks_are_left_out() -> None:
    ours, theirs = rows(grid(1.1)), rows(grid(1.0))
    theirs[0]["clip"] = None
    found = compare(ours, theirs[:-1], "clip")
    assert found is not None
    assert found.mean == pytest.approx(0.1)


def test_equal_seconds_end_where_the_first_arm_does() -> None:
    def curve(seconds: list[float], values: list[float]) -> list[Row]:
        own = {"seed": 0, "key": "k", "portrait_id": "p"}
        points = zip(seconds, values, strict=True)
        return [{"step": step, "seconds": second, "lpips": v, **own} for step, (second, v) in enumerate(points)]

    found = areas({"quick": curve([0, 1, 2], [4, 2, 0]), "slow": curve([0, 2, 4], [4, 2, 0])})
    (quick,), (slow,) = found["quick"], found["slow"]
    assert (quick["lpips_over_steps"], slow["lpips_over_steps"]) == pytest.approx((2.0, 2.0))
    assert quick["lpips_over_seconds"] == pytest.approx(2.0)
    assert slow["lpips_over_seconds"] == pytest.approx(3.0)  # from 4 to 2, at half the speed


def test_arms_that_are_compared_differ_in_what_they_are_named_for_alone() -> None:
    demo = load_settings("demo", [])
    own = demo.distill
    chosen = {arm.name: load_settings("demo", arm.overrides(1, 90, demo)).distill for arm in ARMS}
    both = chosen[BOTH].model_dump()
    assert {name for name, value in chosen[NO_3D].model_dump().items() if value != both[name]} == {"lambda_3d"}
    assert {name for name, value in chosen[NO_2D].model_dump().items() if value != both[name]} == {"lambda_2d"}
    assert chosen[WHOLE] == chosen[BOTH]
    assert next(arm.stage for arm in ARMS if arm.name == WHOLE) is WHOLE_ARM
    assert (both["iterations"], both["triplane_iterations"], both["seed"]) == (90, 0, 1)
    profile = own.model_dump(exclude={"seed", "grid_every"})
    assert chosen[STUDENT].model_dump(exclude={"seed", "grid_every"}) == profile


def trained(folder: Path, means: dict[tuple[str, str], float], settings: Settings | None = None) -> list[Trained]:
    """All arms with two seeds. `means`: by method and measure, where it is not 1."""
    made = []
    settings = settings or Settings()
    rng = np.random.default_rng(0)
    for arm in arms_of(settings.world):
        for seed in range(2):
            own = folder / f"{arm.name}-{seed}"
            own.mkdir(parents=True)
            methods = TABLE.methods if arm.name == STUDENT else (STUDENT,)
            found: list[Row] = []
            for method in methods:
                write_png(own / picture_name(method), np.zeros((8, 24, 3), np.uint8))
                for portrait in range(4):
                    name = arm.name if method == STUDENT else method
                    values = {m: means.get((name, m), 1.0) + 0.01 * rng.normal() for m in MEASURES}
                    row = {"key": f"k{portrait}", "portrait_id": f"p{portrait}", "style": "zombie", "seed": seed}
                    found.append({**row, "method": method, **values})
            write_png(own / picture_name(TRUE), np.zeros((8, 24, 3), np.uint8))
            pace = means.get((arm.name, "pace"), 1.0)
            curve = [
                {"step": s, "seconds": s * pace, "key": r["key"], "portrait_id": r["portrait_id"], "seed": seed}
                | {"lpips": 4.0 - s + (0.2 if arm.name == WHOLE and s else 0.0)}
                for s in range(3)
                for r in found[:4]
            ]
            timing = [{"editor_steps": 100, STUDENT: 0.01, TEACHERS: 1.5}] if arm.name == STUDENT else []
            run = f"run-{arm.name}-{seed}"
            made.append(Trained(arm.name, seed, found, curve, timing, own, settings, 60.0, run))
    return made


def test_the_page_says_of_each_claim_what_came_out(tmp_path: Path) -> None:
    means = {
        (STUDENT, "id"): 1.5,  # of three, one as claimed, one the other way, one neither
        (STUDENT, "clip"): 0.5,
        (NO_3D, "depth_error"): 2.0,
        (NO_3D, "psnr_novel"): 0.5,
        (NO_2D, "clip"): 2.0,
        (NO_2D, "lpips"): 0.5,
        (WHOLE, "pace"): 2.0,
        (LIFTED_NO_HIGH, "colours_moved"): 2.0,
        (LIFTED_NO_LOW, "depth_moved"): 2.0,
        (LIFTED_NO_LOW, "silhouette_kept"): 0.5,
    }
    document, files = write_page(tmp_path / "page", "the command", trained(tmp_path, means))
    verdicts = {claim["number"]: claim["verdict"] for claim in document["claims"]}
    assert verdicts == {
        1: "not reproduced",
        2: "reproduced",
        3: "opposite",
        4: "reproduced",
        5: "not reproduced",
        6: "reproduced",
    }
    assert all(path.stat().st_size for path in files)
    assert {path.name for path in files} == {PAGE, *(claim.figure for claim in CLAIMS)}
    page = (tmp_path / "page" / PAGE).read_text(encoding="utf-8")
    for claim in CLAIMS:
        assert f"## {claim.number}. {claim.title}" in page
        assert f"]({claim.figure})" in page
    assert "`the command`" in page
    assert "of 4 measures 1 as the paper says, 1 the other way, 2 undecided" in page  # speed is the fourth: 150 times
    assert "| 100 | 150 | 150 to 150 | 250 | not reproduced |" in page
    assert "Opposite: every measure goes the other way." in page
    assert f"`run-{WHOLE}-1`" in page


def test_the_paper_s_page_shows_its_claims_and_names_those_it_leaves_out(tmp_path: Path) -> None:
    document, _ = write_page(tmp_path / "page", "the command", trained(tmp_path, {}, load_settings("paper")))
    assert [claim["number"] for claim in document["claims"]] == [1, 3, 4, 6]
    page = (tmp_path / "page" / PAGE).read_text(encoding="utf-8")
    assert "Not offered in this world" in page
    assert CLAIMS[1].title in page
    assert f"## 2. {CLAIMS[1].title}" not in page
