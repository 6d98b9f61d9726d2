"""Exam of the embedded networks: loaded by the zoo, together, on held-out people.

`exam.json` in the working folder holds every number with its interval over people and its bar; examining some networks
again keeps the numbers of the others.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from models.zoo import zoo
from tasks.lab.pretraining import recipes, report
from tasks.lab.pretraining.exam import edits, generated, heads, judges
from tasks.lab.pretraining.faces import load_faces
from tasks.lab.pretraining.marks import Examined
from tasks.lab.pretraining.pictures import VALIDATION_SEEDS, load_pictures

logger = logging.getLogger(__name__)

EXAMS: dict[str, Callable[[Any], Examined]] = {
    "autoencoder": edits.examine_autoencoder,
    "editor": edits.examine_editor,
    "teacher": heads.examine_teacher,
    "landmarks": judges.examine_landmarks,
    "clip": judges.examine_clip,
    "identity": judges.examine_identity,
    "perceptual": judges.examine_perceptual,
    "mae": judges.examine_mae,
    "generator": generated.examine_generator,
}
EXAM = "exam.json"


def take_exam(names: Sequence[str], pictures: Path, weights: Path, work: Path) -> dict[str, dict[str, float]]:
    """Examine these networks; write `exam.json` and `report.html` into `work`. One thread, in a process of its own.

    pictures: where the folders of pictures and faces are.  weights: of all embedded networks.
    Returns every number by network and key, as MLflow gets it.
    """
    torch.set_num_threads(1)
    # The zoo reads its list and its weights once a process: hence a process of its own.
    os.environ["STILLROOM_MODELS"] = str(recipes.registry_of(weights))
    people = load_pictures(pictures / "pictures", VALIDATION_SEEDS, recipes.HELD_OUT)
    examined: dict[str, Examined] = {}
    for name in names:
        began = time.monotonic()
        seen = load_faces(pictures / "faces", VALIDATION_SEEDS, recipes.HELD_OUT) if name == "identity" else people
        examined[name] = EXAMS[name](seen)
        logger.info("%s examined in %.0f s", name, time.monotonic() - began)
    zoo.load.cache_clear()
    work.mkdir(parents=True, exist_ok=True)
    document = read_exam(work)
    for name, found in examined.items():
        document[name] = [mark.describe() for mark in found.marks]
    (work / EXAM).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    report.write_report(examined, work)
    return {name: metrics(found) for name, found in examined.items()}


def metrics(found: Examined) -> dict[str, float]:
    """Numbers and ends of intervals by key."""
    values: dict[str, float] = {}
    for mark in found.marks:
        if mark.value is not None and mark.low is not None and mark.high is not None:
            values |= {mark.key: mark.value, f"{mark.key}.low": mark.low, f"{mark.key}.high": mark.high}
    return values


def read_exam(work: Path) -> dict[str, list[dict[str, Any]]]:
    """The marks of each network that was examined so far."""
    path = work / EXAM
    document: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return document
