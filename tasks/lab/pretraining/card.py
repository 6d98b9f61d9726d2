"""Model card of the embedded networks: training, results of the exam, and limits of each.

All that it says of numbers stands in `card.json` beside it, so that training one network again, on another machine,
keeps what is said of the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.lab.pretraining import recipes
from tasks.templates import render

FACTS = "card.json"

Row = dict[str, Any]


@dataclass(frozen=True)
class About:
    """Description of a network that does not change with its training."""

    title: str
    data: str
    limits: str


PICTURES = f"hand-held crops of {recipes.PEOPLE} people in all eleven looks"
ABOUT = {
    "autoencoder": About(
        "Autoencoder (diffusers AutoencoderKL)",
        f"{PICTURES}; L1 of the picture and of its gradients, noise on the latents instead of a KL term. The decoder "
        "then learns alone, by squared error and LPIPS too, above all where some edit changes the portrait.",
        "Lines of one pixel (rims of glasses, strokes of a sketch, neon outlines) come back softer.",
    ),
    "editor": About(
        "Editor (diffusers InstructPix2Pix)",
        f"the latents of {PICTURES}: portrait, instruction, true edit. Half of the instructions are "
        "paraphrases of a few sentences, half are names of a look in 22 frames; 3 more frames are kept for the exam. "
        "The error of the decoded picture counts beside that of the latents, in L1 and LPIPS.",
        "It knows these ten styles. It draws through the autoencoder, so what that blurs, it blurs, also where nothing "
        "should change. Hair styles are new in the exam only as those of new people, not as classes.",
    ),
    "teacher": About(
        "Teacher (Live3D, small)",
        f"{PICTURES}, three looks of each also from three cameras with yaws to ±0.7 rad, with exact depths.",
        "Softer than the portraits: at novel views eyes and mouths are spots, and so are strokes and outlines.",
    ),
    "landmarks": About(
        "Landmarks (heatmaps, soft argmax)",
        f"raw photographs and {PICTURES}, moved and mirrored.",
        "One head a picture, yaws to ±0.5 rad. Of a face the camera knows how its five points may differ, no "
        "more: a nose set high and a face that looks up are partly taken for each other.",
    ),
    "clip": About(
        "CLIP (transformers CLIPModel)",
        f"{PICTURES}, a third from other cameras, with captions and instructions.",
        "An edit of a few pixels (of a bald person with red hair, the brows alone) is mistaken once it is blurred.",
    ),
    "identity": About(
        "Identity (ArcFace)",
        f"{recipes.PEOPLE} people with twelve pictures each: scene, camera and look change, the person does not. "
        "Half of the pictures are softened, as students and teachers soften them.",
        "A style that covers hair and skin takes much of what tells people apart here: compare an edit's score with "
        "that of the true edit, not with 1.",
    ),
    "mae": About(
        "MAE (image prompts)",
        f"{PICTURES}, masked.",
        "It learned from pictures alone and was never told a look.",
    ),
    "generator": About(
        "Generator (EG3D, small) and its encoder to w+",
        f"plain heads of {recipes.PEOPLE} people from four cameras each. z is a person's parameters, so that no "
        "adversary is needed; the teacher's triplanes and renderer are where it starts.",
        "It knows plain heads only. Rare hair and the rims of hair are soft where z alone draws.",
    ),
    "perceptual": About(
        "LPIPS (SqueezeNet)",
        f"{PICTURES}; it tells look, hair, glasses, colours and landmarks apart.",
        "Its values compare with each other only, not with published LPIPS, and not with those of another training.",
    ),
}  # fmt: skip


def write_card(work: Path, weights: Path | None = None) -> Path:
    """Write README.md and card.json beside the weights; `work` adds to the existing card.json.

    work: has `exam.json` and, by network, the `card.json` of its training; what is missing stays as it was.
    """
    weights = weights or recipes.WEIGHTS
    weights.mkdir(parents=True, exist_ok=True)
    facts = gather_facts(work, weights)
    (weights / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    target = weights / "README.md"
    target.write_text(
        render("embedded_card.md.j2", networks=describe(facts), bars=describe_bars(facts), held_out=recipes.HELD_OUT),
        encoding="utf-8",
    )
    return target


def gather_facts(work: Path, weights: Path) -> dict[str, Row]:
    """By network, `training` and `exam`: the newest known of each, in the order of the recipes."""
    known = _read(weights / FACTS)
    exams = _read(work / "exam.json")
    facts: dict[str, Row] = {}
    for name in recipes.NEEDS:
        training = _read(work / name / FACTS) or known.get(name, {}).get("training", {})
        exam = exams.get(name) or known.get(name, {}).get("exam", [])
        if training or exam:
            facts[name] = {"training": training, "exam": exam}
    return facts


def _read(path: Path) -> Row:
    document: Row = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return document


def describe(facts: dict[str, Row]) -> list[Row]:
    """Return the description of each network for card and report."""
    return [
        {"name": name, "about": ABOUT[name], "training": fact["training"], "tables": tabulate(fact["exam"])}
        for name, fact in facts.items()
    ]


def tabulate(marks: Sequence[Row]) -> list[Row]:
    """Tables of marks: the numbers about everything, then by wording those of the single looks, a column a measure."""
    tables = []
    for group in dict.fromkeys(mark["group"] for mark in marks):
        mine = [mark for mark in marks if mark["group"] == group]
        whole = [mark for mark in mine if not mark["subject"]]
        single = [mark for mark in mine if mark["subject"]]
        if whole:
            rows = [[mark["title"], write_value(mark), write_bar(mark), write_verdict(mark)] for mark in whole]
            head = ["measured", "value (95 % interval)", "bar", ""]
            tables.append({"group": group, "head": head, "rows": rows})
        if single:
            tables.append({"group": group, **_by_look(single)})
    return tables


def _by_look(marks: Sequence[Row]) -> Row:
    columns = list(dict.fromkeys((mark["title"], write_bar(mark)) for mark in marks))
    cells = {(mark["subject"], mark["title"]): mark for mark in marks}
    rows = []
    for subject in dict.fromkeys(mark["subject"] for mark in marks):
        row = [subject]
        for title, _ in columns:
            mark = cells.get((subject, title))
            row.append(f"{write_value(mark)} {write_verdict(mark, short=True)}".strip() if mark else "")
        rows.append(row)
    return {"head": ["look", *(f"{title}, {bar}" if bar else title for title, bar in columns)], "rows": rows}


def describe_bars(facts: dict[str, Row]) -> list[Row]:
    """Return a row for each bar: how many numbers reach it, and the worst of them."""
    rows = []
    for name, fact in facts.items():
        barred = [mark for mark in fact["exam"] if mark["bar"] is not None]
        for kind in dict.fromkeys((mark["title"], mark["group"]) for mark in barred):
            marks = [m for m in barred if (m["title"], m["group"]) == kind and m["value"] is not None]
            if marks:
                worst = (min if marks[0]["higher"] else max)(marks, key=lambda mark: float(mark["value"]))
                reached = sum(mark["reached"] for mark in marks)
                rows.append({
                    "network": name, "title": ", ".join(filter(None, kind)),
                    "bar": write_bar(worst), "reached": reached, "of": len(marks),
                    "worst": " ".join(filter(None, (write_value(worst), worst["subject"]))),
                })  # fmt: skip
    return rows


def write_value(mark: Row) -> str:
    """The number and its interval; a dash where there is none."""
    if mark["value"] is None:
        return "\N{EN DASH}"
    return f"{mark['value']:.3g} ({mark['low']:.3g} to {mark['high']:.3g})"


def write_bar(mark: Row) -> str:
    if mark["bar"] is None:
        return ""
    return f"{'≥' if mark['higher'] else '≤'} {mark['bar']:g}"


def write_verdict(mark: Row, short: bool = False) -> str:
    """Write whether the bar is reached; `short` mentions only misses."""
    if mark["reached"] is None:
        return ""
    if mark["reached"]:
        return "" if short else "reached"
    return "✗" if short else "not reached"
