"""The claims of the paper that are checked (3DPE, Table 1, Figures 3 and 6, section 3.2), and their rule.

All of it is fixed before an arm is trained: the arms, the compared measure, the direction that the paper claims, and
the condition for "reproduced". A world offers the claims whose measures it knows: without true heads no depth error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Stage
from tasks.evaluation.metrics import TRUE_MEASURES
from tasks.evaluation.table import STUDENT, TEACHERS
from tasks.lab.claims.arm import FROZEN_ARM, TABLE_ARM, WHOLE_ARM
from tasks.lab.claims.exam import LIFTED_NO_HIGH, LIFTED_NO_LOW, NO_HIGH, NO_LOW

BOTH, NO_3D, NO_2D, WHOLE = "both losses", "without L3D", "without L2D", "everything learns"
PAPER_SPEEDUP = 250.0  # at 100 steps of the editor
LOOKS = 4  # measurements of the tested samples while an arm learns, the last at its end; one more before it
DRAWS = 2000  # bootstrap draws for an interval

NOT_MEASURED: Literal["not measured"] = "not measured"
Verdict = Literal["reproduced", "not reproduced", "opposite", "not measured"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """Training of an arm: its objective, by settings, and the stage that carries it out. Every seed has each arm."""

    name: str
    stage: Stage
    settings: Mapping[str, float | str]
    own_length: bool = True  # as many iterations as all arms that are compared; False: as the profile trains

    def overrides(self, seed: int, iterations: int | None, profile: Settings) -> list[str]:
        """Return the arm's changes to the profile's settings.

        iterations: of the arms that are compared; None: `ITERATIONS` in the embedded world, else the profile's own.
        """
        embedded, own = profile.world == "embedded", profile.distill.iterations
        compared = iterations or (ITERATIONS if embedded else own)
        length = compared if self.own_length else own
        # The paper's profile compares views in every iteration, at its own rates.
        pace = VIEWS if embedded and self.own_length else {}
        chosen = {"iterations": length, "grid_every": math.ceil(length / LOOKS), "seed": seed, **pace, **self.settings}
        return [f"distill.{name}={json.dumps(value)}" for name, value in chosen.items()]


ITERATIONS = 400
# An iteration that compares triplanes only has no L2D. From patches of views alone, a few
# hundred iterations of AdamW, the paper's kind of optimizer, teach more of an edit than the demo's Muon.
VIEWS: Mapping[str, float | str] = {
    "triplane_iterations": 0,
    "optimizer": "adamw",
    "lr": 4e-3,
    "lr_transformer": 1.5e-3,
    "ema_decay": 0.0,  # over a few hundred iterations, an average would mostly hold untrained weights
}
ARMS = (
    Arm(STUDENT, TABLE_ARM, {}, own_length=False),
    Arm(BOTH, FROZEN_ARM, {}),
    Arm(NO_3D, FROZEN_ARM, {"lambda_3d": 0.0}),
    Arm(NO_2D, FROZEN_ARM, {"lambda_2d": 0.0}),
    Arm(WHOLE, WHOLE_ARM, {}),
)


@dataclass(frozen=True)
class Test:
    """`ours` against `theirs`: the paper says that the measure of ours is higher (1) or lower (-1)."""

    measure: str
    ours: str
    theirs: str
    claimed: Literal[1, -1]


@dataclass(frozen=True)
class Claim:
    """Reproduced if all of its tests are. `figure` names its picture."""

    number: int
    title: str
    says: str
    tests: tuple[Test, ...]
    arms: tuple[str, ...]  # that it rests on

    @property
    def figure(self) -> str:
        return f"claims-{self.number}.png"

    @property
    def needs_truth(self) -> bool:
        """Whether a measure is known only where the true styled heads are."""
        return any(test.measure in TRUE_MEASURES for test in self.tests)


CLAIMS = (
    Claim(
        1,
        "Table 1: the student beside editor and teacher",
        "One pass of the student is ahead of the editor followed by the teacher on identity (ID), prompt (CLIP) and "
        "consistency between views (3D), and about 250 times as fast.",
        tuple(Test(measure, STUDENT, TEACHERS, 1) for measure in ("id", "clip", "three_d")),
        (STUDENT,),
    ),
    Claim(
        2,
        "Figure 6a: without L3D the geometry goes flat",
        "A student that learns from L2D alone has a wrong shape: a larger depth error, worse novel views.",
        (Test("depth_error", NO_3D, BOTH, 1), Test("psnr_novel", NO_3D, BOTH, -1)),
        (BOTH, NO_3D),
    ),
    Claim(
        3,
        "Figure 6b: without L2D the texture of the prompt is lost",
        "A student that learns from L3D alone shows less of the prompt from the portrait's own camera.",
        (Test("clip", NO_2D, BOTH, -1), Test("lpips", NO_2D, BOTH, 1)),
        (BOTH, NO_2D),
    ),
    Claim(
        4,
        "Section 3.2: learning E_p and E_t alone converges faster",
        "With E_low and E_high frozen, the student is nearer to its aim on the way, at equal steps and equal seconds.",
        (Test("lpips_over_steps", WHOLE, BOTH, 1), Test("lpips_over_seconds", WHOLE, BOTH, 1)),
        (BOTH, WHOLE),
    ),
    Claim(
        5,
        "Figure 3 on the student: E_high carries the appearance, E_low the structure",
        "Switching off E_high in the student loses the appearance and keeps the structure; switching off E_low the "
        "reverse.",
        (
            Test("colours", NO_HIGH, STUDENT, 1),
            Test("colours", NO_HIGH, NO_LOW, 1),
            Test("silhouette_iou", NO_LOW, STUDENT, -1),
            Test("silhouette_iou", NO_LOW, NO_HIGH, -1),
            Test("depth_error", NO_LOW, STUDENT, 1),
            Test("depth_error", NO_LOW, NO_HIGH, 1),
        ),
        (STUDENT,),
    ),
    Claim(
        6,
        "Figure 3 on Live3D itself",
        "With random weights in E_high, Live3D's heads lose the appearance more than with random weights in E_low; "
        "with those in E_low they lose the structure more.",
        (
            Test("colours_moved", LIFTED_NO_HIGH, LIFTED_NO_LOW, 1),
            Test("depth_moved", LIFTED_NO_LOW, LIFTED_NO_HIGH, 1),
            Test("silhouette_kept", LIFTED_NO_LOW, LIFTED_NO_HIGH, -1),
        ),
        (STUDENT,),
    ),
)


def claims_of(world: str) -> tuple[Claim, ...]:
    """Return the claims that can be measured in a world: only the embedded one knows the true heads."""
    return tuple(claim for claim in CLAIMS if world == "embedded" or not claim.needs_truth)


def arms_of(world: str) -> tuple[Arm, ...]:
    """Return the arms that a world's claims rest on."""
    wanted = {name for claim in claims_of(world) for name in claim.arms}
    return tuple(arm for arm in ARMS if arm.name in wanted)


@dataclass(frozen=True)
class Difference:
    """Mean of ours minus theirs, and its 95 % interval."""

    mean: float
    low: float
    high: float


def compare(ours: Sequence[Row], theirs: Sequence[Row], measure: str, draws: int = DRAWS) -> Difference | None:
    """Return the paired difference of a measure: same seed, same sample. None where it was not measured.

    rows: with seed, key, portrait_id and the measure.  Bootstrap over seeds and portraits: neither the styles of one
    portrait nor the portraits of one training are independent.
    """
    known = {(row["seed"], row["key"]): row[measure] for row in theirs if row[measure] is not None}
    pairs = [row for row in ours if row[measure] is not None and (row["seed"], row["key"]) in known]
    if not pairs:
        return None
    seeds, portraits = (sorted({row[name] for row in pairs}) for name in ("seed", "portrait_id"))
    sums, counts = np.zeros((2, len(seeds), len(portraits)))
    for row in pairs:
        place = seeds.index(row["seed"]), portraits.index(row["portrait_id"])
        sums[place] += row[measure] - known[row["seed"], row["key"]]
        counts[place] += 1
    rng = np.random.default_rng(0)
    times = [rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(float) for n in counts.shape]
    totals, weights = (np.einsum("ds,sp,dp->d", times[0], each, times[1]) for each in (sums, counts))
    low, high = np.quantile(totals[weights > 0] / weights[weights > 0], [0.025, 0.975])
    return Difference(float(sums.sum() / counts.sum()), float(low), float(high))


def judge(difference: Difference | None, claimed: int) -> Verdict:
    """Reproduced if the interval excludes 0 in the claimed direction, opposite if in the other; else not reproduced."""
    if difference is None:
        return NOT_MEASURED
    low, high = sorted((difference.low * claimed, difference.high * claimed))
    return "reproduced" if low > 0 else "opposite" if high < 0 else "not reproduced"


def judge_speed(ratios: Sequence[float]) -> Verdict:
    """Reproduced if every repetition is as many times as fast as the paper's, opposite if every one is slower."""
    if min(ratios) >= PAPER_SPEEDUP:
        return "reproduced"
    return "opposite" if max(ratios) < 1 else "not reproduced"


def judge_all(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict on a claim: that of its tests where they agree, else not reproduced.

    A claim with a test that was not measured is not measured.
    """
    if NOT_MEASURED in verdicts:
        return NOT_MEASURED
    return verdicts[0] if len(set(verdicts)) == 1 else "not reproduced"


def areas(curves: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """LPIPS in the mean over the steps, and over the seconds that all arms had, for each sample of one seed.

    curves: by arm, rows of step, seconds, key, portrait_id and lpips.  Between two looks it is taken as a line.
    """
    end_s = min(max(row["seconds"] for row in rows) for rows in curves.values())
    found: dict[str, list[Row]] = {}
    for arm, rows in curves.items():
        found[arm] = []
        for key in dict.fromkeys(row["key"] for row in rows):
            mine = sorted((row for row in rows if row["key"] == key), key=lambda row: row["step"])
            steps, seconds, values = ([row[name] for row in mine] for name in ("step", "seconds", "lpips"))
            means = {"steps": _mean_of_line(steps, values, steps[-1]), "seconds": _mean_of_line(seconds, values, end_s)}
            own = {"key": key, "portrait_id": mine[0]["portrait_id"], "seed": mine[0]["seed"]}
            found[arm].append(own | {f"lpips_over_{name}": value for name, value in means.items()})
    return found


def _mean_of_line(places: Sequence[float], values: Sequence[float], end: float) -> float:
    """The mean of a broken line from its first place to `end`."""
    inner = [place for place in places if place < end]
    heights = np.interp([*inner, end], places, values)
    return float(np.trapezoid(heights, [*inner, end]) / (end - places[0]))
