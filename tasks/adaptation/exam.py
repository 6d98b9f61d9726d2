"""Exam of an adapted student: LPIPS on samples that it does not learn from.

Edits are rendered from the portrait's camera and compared, as in the evaluation, with the true styled head where it is
known, else with the pseudo-label. The teachers' own result bounds the possible gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data_catalog.config.settings import Settings
from models import procedural
from models.pixels import signed
from tasks.evaluation.metrics import render_views, true_heads
from tasks.evaluation.scene import portrait_camera
from tasks.pictures.sheets import caption, contact_sheet, write_png
from tasks.training.data import SampleRef, read_fields
from tasks.training.reading import text_tokens

if TYPE_CHECKING:
    from models.judges.clip import Clip
    from models.three_d.live3d import Live3D
    from models.three_d.losses import PerceptualDistance
    from models.three_d.student import Student

DRAWS = 1000  # bootstrap draws for an interval


@dataclass(frozen=True)
class Question:
    """Sample of the exam: the student's inputs, and the expected picture."""

    style: str
    portrait: np.ndarray  # (H, W, 3) uint8
    camera: np.ndarray  # (25,) float32
    prompt: str
    pseudo_label: np.ndarray  # (H, W, 3) uint8
    answer: np.ndarray  # (H, W, 3) uint8
    true: bool  # the answer is the true head, not a pseudo-label


class Exam:
    """Samples with their answers, made once: each look at a student costs its edits only."""

    def __init__(
        self, samples: Sequence[SampleRef], clip: Clip, perceptual: PerceptualDistance, settings: Settings
    ) -> None:
        self.clip, self.perceptual, self.device = clip, perceptual, settings.run.device
        self.questions = [ask(sample, settings) for sample in samples]
        # LPIPS is to it.
        self.aim = "true styled head" if all(question.true for question in self.questions) else "pseudo-label"

    def take(self, student: Student) -> dict[str, float]:
        """The mean LPIPS of each style."""
        found: dict[str, list[float]] = {}
        for question, distance in zip(self.questions, self.judge(self.edits(student)), strict=True):
            found.setdefault(question.style, []).append(float(distance))
        return {style: float(np.mean(values)) for style, values in found.items()}

    @torch.no_grad()
    def judge(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """(Q,) LPIPS of a picture (H, W, 3) uint8 for each question to its answer."""
        pairs = zip(pictures, self.questions, strict=True)
        found = [self.perceptual(self._signed(picture), self._signed(asked.answer)) for picture, asked in pairs]
        return np.array([float(distance.mean()) for distance in found])

    @torch.no_grad()
    def edits(self, student: Student) -> list[np.ndarray]:
        """The student's edits (H, W, 3) uint8, in the order of the questions."""
        was_training = student.training
        student.eval()
        views = []
        for question in self.questions:
            tokens = text_tokens(student, self.clip, [question.prompt]).to(self.device)
            triplane = student.encode(self._signed(question.portrait), tokens, "text")
            views.append(render_views(student, triplane, torch.from_numpy(question.camera)[None])[0])
        student.train(was_training)
        return views

    @torch.no_grad()
    def lifted(self, teacher: Live3D) -> list[np.ndarray]:
        """Render the teacher's views (H, W, 3) uint8 of the pseudo-labels, the bound of what a student can reach."""
        views = []
        for question in self.questions:
            triplane = teacher.encode(self._signed(question.pseudo_label))
            views.append(render_views(teacher, triplane, torch.from_numpy(question.camera)[None])[0])
        return views

    def draw(self, columns: Sequence[Sequence[np.ndarray]], path: Path, names: Sequence[str] = ()) -> Path:
        """Draw a row for each question: portrait, answer, and the given edits of it.

        names: of the edits' columns, written above them.
        """
        rows = [
            [question.portrait, question.answer, *(edits[i] for edits in columns)]
            for i, question in enumerate(self.questions)
        ]
        sheet = contact_sheet(rows, scale=max(1, 128 // rows[0][0].shape[0]))
        return write_png(path, caption(sheet, ["portrait", self.aim, *names]) if names else sheet)

    def _signed(self, picture: np.ndarray) -> Tensor:
        return signed(picture[None], self.device)


def ask(sample: SampleRef, settings: Settings) -> Question:
    """The question of a sample."""
    fields, camera = read_fields(sample), portrait_camera(sample)
    person, answer = sample.portrait_seed, fields.pseudo_label
    known = sample.true_camera is not None and sample.style in procedural.STYLES
    if known and person is not None:
        answer = true_heads(person, camera[None], settings.align.size, [sample.style])[sample.style].pictures[0]
    return Question(sample.style, fields.portrait, camera, sample.prompt, fields.pseudo_label, answer, known)


def gain_interval(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the relative decrease of the mean: bootstrap over portraits, values paired.

    before, after: (Q,), of the same questions.
    """
    places = np.random.default_rng(0).integers(len(before), size=(DRAWS, len(before)))
    gains = 1.0 - after[places].mean(axis=1) / before[places].mean(axis=1)
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)
