"""Page of the claims: for each the paper's statement, the numbers, the picture, the verdict and the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data_catalog.config.settings import Settings
from tasks.evaluation.table import STUDENT, TEACHERS
from tasks.lab.claims.arm import picture_name
from tasks.lab.claims.claims import (
    BOTH,
    CLAIMS,
    LOOKS,
    PAPER_SPEEDUP,
    WHOLE,
    Claim,
    Row,
    Test,
    areas,
    claims_of,
    compare,
    judge,
    judge_all,
    judge_speed,
)
from tasks.lab.claims.exam import PAPER_EDITOR_STEPS, TRUE
from tasks.lab.claims.figures import draw_curves, draw_strips
from tasks.templates import render

PAGE = "claims.md"
TITLES = {
    "id": "ID",
    "clip": "CLIP",
    "three_d": "3D",
    "depth_error": "depth error",
    "psnr_novel": "PSNR of novel views, dB",
    "lpips": "LPIPS at the input view",
    "lpips_over_steps": "LPIPS, mean over the steps",
    "lpips_over_seconds": "LPIPS, mean over equal seconds",
    "colours": "distance of the colours",
    "silhouette_iou": "silhouette, intersection over union",
    "colours_moved": "distance of the colours from Live3D's",
    "depth_moved": "distance of the depth from Live3D's, relative",
    "silhouette_kept": "silhouette, intersection over union with Live3D's",
}
DIGITS = {"psnr_novel": 2, "depth_error": 4, "colours": 4, "colours_moved": 4, "depth_moved": 4}


@dataclass(frozen=True)
class Trained:
    """Trained arm. Rows and curve have the seed, too; seconds are of its training, by the wall clock."""

    arm: str
    seed: int
    rows: list[Row]
    curve: list[Row]
    timing: list[Row]
    folder: Path
    settings: Settings
    seconds: float
    run_id: str


def write_page(folder: Path, command: str, trained: Sequence[Trained]) -> tuple[Row, list[Path]]:
    """Write the page and its pictures into the folder. Returns the numbers, and the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = gather(trained)
    speeds = [speed_row(steps, ratios) for steps, ratios in speed_ratios(trained).items()]
    first = {each.arm: each for each in reversed(trained)}
    offered = claims_of(first[STUDENT].settings.world)
    claims = [describe(claim, rows, trained, speeds if claim.number == 1 else []) for claim in offered]
    pictures = [draw(claim, trained, folder / claim.figure) for claim in offered]
    facts = {
        "command": command,
        "seeds": len({each.seed for each in trained}),
        "samples": len({row["key"] for row in first[BOTH].rows}),
        "portraits": len({row["portrait_id"] for row in first[BOTH].rows}),
        "styles": sorted({row["style"] for row in first[BOTH].rows}),
        "minutes": sum(each.seconds for each in trained) / 60,
        "looks": LOOKS,
        "left_out": [f"{claim.number}. {claim.title}" for claim in CLAIMS if claim not in offered],
        "table": first[STUDENT].settings,
        "arms": first[BOTH].settings,
    }
    (folder / PAGE).write_text(render("claims.md.j2", claims=claims, **facts), encoding="utf-8")
    told = {"claims": claims, **{name: facts[name] for name in ("command", "seeds", "samples", "portraits", "styles")}}
    return told, [folder / PAGE, *pictures]


def gather(trained: Sequence[Trained]) -> dict[str, list[Row]]:
    """The rows of every method of the claims: an arm's student has the arm's name."""
    rows: dict[str, list[Row]] = {}
    for each in trained:
        for row in each.rows:
            rows.setdefault(each.arm if row["method"] == STUDENT else row["method"], []).append(row)
    for seed in sorted({each.seed for each in trained}):
        curves = {each.arm: each.curve for each in trained if each.seed == seed and each.arm in (BOTH, WHOLE)}
        by_key = {(arm, row["key"]): row for arm, mine in areas(curves).items() for row in mine}
        for arm in curves:
            for row in rows[arm]:
                if row["seed"] == seed:
                    row.update(by_key[arm, row["key"]])
    return rows


def speed_ratios(trained: Sequence[Trained]) -> dict[int, list[float]]:
    """Return the speed-up of the student over its teachers, by steps of the editor, one value a repetition."""
    ratios: dict[int, list[float]] = {}
    for each in trained:
        for row in each.timing:
            ratios.setdefault(row["editor_steps"], []).append(row[TEACHERS] / row[STUDENT])
    return ratios


def speed_row(steps: int, ratios: Sequence[float]) -> Row:
    """Describe the speed-up at a number of steps; the paper has a value for its own number only."""
    judged = judge_speed(ratios) if steps == PAPER_EDITOR_STEPS else None
    return {
        "steps": steps,
        "median": float(np.median(ratios)),
        "low": min(ratios),
        "high": max(ratios),
        "repetitions": len(ratios),
        "verdict": judged,
        "paper": PAPER_SPEEDUP,
    }


def describe(claim: Claim, rows: dict[str, list[Row]], trained: Sequence[Trained], speeds: Sequence[Row]) -> Row:
    """A claim as the template wants it."""
    tests = [describe_test(test, rows) for test in claim.tests]
    verdicts = [test["verdict"] for test in tests] + [row["verdict"] for row in speeds if row["verdict"]]
    verdict = judge_all(verdicts)
    return {
        "number": claim.number,
        "title": claim.title,
        "says": claim.says,
        "verdict": verdict,
        "sentence": sentence(verdict, verdicts),
        "tests": tests,
        "speeds": list(speeds),
        "figure": claim.figure,
        "runs": [{"arm": t.arm, "seed": t.seed, "run": t.run_id} for t in trained if t.arm in claim.arms],
    }


def describe_test(test: Test, rows: dict[str, list[Row]]) -> Row:
    """Means of both, their paired difference, and the verdict on it."""
    found = compare(rows[test.ours], rows[test.theirs], test.measure)
    means = {name: _mean(rows[name], test.measure) for name in (test.ours, test.theirs)}
    by_seed = [_mean([row for row in rows[test.ours] if row["seed"] == seed], test.measure) for seed in _seeds(rows)]
    return {
        "measure": TITLES[test.measure],
        "digits": DIGITS.get(test.measure, 3),
        "ours": test.ours,
        "theirs": test.theirs,
        "our_mean": means[test.ours],
        "their_mean": means[test.theirs],
        "our_seeds": by_seed,
        "claimed": "higher" if test.claimed > 0 else "lower",
        "difference": None if found is None else asdict(found),
        "verdict": judge(found, test.claimed),
    }


def sentence(verdict: str, verdicts: Sequence[str]) -> str:
    """The verdict in plain words."""
    if len(set(verdicts)) == 1:
        said = {
            "reproduced": "Reproduced: every measure goes the way the paper says.",
            "opposite": "Opposite: every measure goes the other way.",
            "not reproduced": "Not reproduced: no measure goes either way beyond its interval.",
            "not measured": "Not measured: there are no numbers to judge by.",
        }
        return said[verdict]
    counts = {name: verdicts.count(name) for name in dict.fromkeys(verdicts)}
    parts = {
        "reproduced": "as the paper says",
        "opposite": "the other way",
        "not reproduced": "undecided",
        "not measured": "not measured",
    }
    told = ", ".join(f"{count} {parts[name]}" for name, count in counts.items())
    return f"{verdict.capitalize()} as a whole: of {len(verdicts)} measures {told}."


def draw(claim: Claim, trained: Sequence[Trained], path: Path) -> Path:
    """The picture of a claim, of the first seed; of claim 4 the curves of all seeds."""
    if claim.number == 4:
        return draw_curves({arm: [t.curve for t in trained if t.arm == arm] for arm in claim.arms}, path)
    first = {each.arm: each.folder for each in reversed(trained)}
    shown = dict.fromkeys(name for test in claim.tests for name in (test.theirs, test.ours))
    strips = {TRUE: first[claim.arms[0]] / picture_name(TRUE)}
    for name in shown:  # the student of an arm, or another method in the folder of the claim's arm
        strips[name] = (
            first[name] / picture_name(STUDENT) if name in first else first[claim.arms[0]] / picture_name(name)
        )
    return draw_strips({name: strip for name, strip in strips.items() if strip.exists()}, path)


def _seeds(rows: dict[str, list[Row]]) -> list[int]:
    return sorted({row["seed"] for row in rows[BOTH]})


def _mean(rows: Sequence[Row], measure: str) -> float | None:
    values = [row[measure] for row in rows if row[measure] is not None]
    return float(np.mean(values)) if values else None
