"""Views by each method: the student by words and by a picture, its teachers, the unedited portrait, the true head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data_catalog.config.settings import Settings
from data_catalog.store.fingerprint import digest_json
from models.pixels import signed
from tasks.evaluation.metrics import WITHOUT_TARGET, Judges, Truth, Views, look, measure
from tasks.evaluation.scene import Scene
from tasks.evaluation.table import IMAGE_PROMPT, METHODS, NO_EDIT, SEEN_PROMPT, STUDENT, TEACHERS, TRUE_HEAD
from tasks.progress import report
from tasks.training.data import Fields, SampleRef, group_samples, read_fields
from tasks.training.reading import image_tokens, text_tokens

if TYPE_CHECKING:
    from models.editing.editor import Editor
    from models.judges.clip import Clip
    from models.three_d.inference import CpuStudent
    from models.three_d.live3d import Live3D
    from models.three_d.mae import Mae
    from models.three_d.student import Student

Row = dict[str, Any]


@dataclass(frozen=True)
class Models:
    """Networks of an evaluation."""

    student: Student | CpuStudent
    teacher: Live3D
    editor: Editor
    clip: Clip
    mae: Mae | None  # None where the student has its own
    judges: Judges


class Evaluation(Scene):
    """Views of all methods on all samples; shared parts (a portrait, its truth) are made once."""

    def __init__(
        self,
        models: Models,
        settings: Settings,
        references: dict[str, SampleRef],
        learned: dict[str, list[str]],
        training_poses: np.ndarray,
    ) -> None:
        """references: image prompts by the key of the sample.  learned: prompts of the training by style.

        training_poses: (N, 25), of which pairs of views are drawn.
        """
        super().__init__(settings, training_poses, models.teacher.config.renderer.resolution)
        self.models, self.references, self.learned = models, references, learned
        self._plain: dict[str, Views] = {}
        self._kept: dict[str, dict[str, Views]] = {}
        self._truths: dict[str, Truth] = {}

    def keep_views(self, pictured: Mapping[str, Sequence[SampleRef]]) -> None:
        """Cache views and truth of these samples, by style: they are measured and then drawn."""
        self._kept |= {sample.key: {} for samples in pictured.values() for sample in samples}

    def measure_all(self, tested: Sequence[SampleRef], more: int = 0) -> list[Row]:
        """Return a row for each sample and method, by style, key and method. more: steps after these, for reports."""
        found: dict[str, list[Row]] = {}
        for samples in group_samples(tested, "portrait_id").values():
            truths = self.find_truths(samples)  # half of the work
            for sample in samples:
                found[sample.key] = self.measure_sample(sample, truths.get(sample.key))
                report(len(found), len(tested) + more, until=len(tested) if more else None)
        return [row for sample in tested for row in found[sample.key]]

    def measure_sample(self, sample: SampleRef, truth: Truth | None) -> list[Row]:
        """The rows of one sample."""
        fields = read_fields(sample)
        asked = self.ask(sample, fields)
        seen: dict[str, Views | np.ndarray] = {**self.views(sample, fields, self.all_cameras(sample))}
        if truth is not None:
            assert truth.posed is not None
            seen[TRUE_HEAD] = np.concatenate([truth.pictures, truth.posed])
        rows = []
        for method, views in seen.items():
            reference = self.reference(sample) if method == IMAGE_PROMPT else None
            values = measure(self.models.judges, views, asked, truth, reference)
            if method == TRUE_HEAD:
                values = {name: value if name in WITHOUT_TARGET else None for name, value in values.items()}
            own = {"key": sample.key, "style": sample.style, "portrait_id": sample.portrait_id, "method": method}
            rows.append(own | {"prompt": sample.prompt, "truth": truth is not None} | values)
        return rows

    def views(self, sample: SampleRef, fields: Fields, cameras: Tensor) -> dict[str, Views]:
        """Return the views of each method from cameras (V, 25)."""
        if kept := self._kept.get(sample.key):
            return kept
        models = self.models
        seen = {
            STUDENT: look(models.student, self.edit(fields, sample.prompt), cameras),
            TEACHERS: look(models.teacher, self.taught(fields), cameras),
            NO_EDIT: self.unedited(sample, fields, cameras),
        }
        if sample.key in self.references:
            seen[IMAGE_PROMPT] = look(models.student, self.edit_by_image(fields, sample), cameras)
        if learned := self.learned.get(sample.style):
            # Each portrait meets another one of them: the test portraits of a style share few.
            words = learned[int(digest_json(sample.portrait_id)[:8], 16) % len(learned)]
            seen[SEEN_PROMPT] = look(models.student, self.edit(fields, words), cameras)
        if sample.key in self._kept:
            self._kept[sample.key] = {name: seen[name] for name in METHODS}
        return seen

    def unedited(self, sample: SampleRef, fields: Fields, cameras: Tensor) -> Views:
        """The teacher's reconstruction of the portrait; the same for every style."""
        if sample.portrait_id not in self._plain:
            self._plain[sample.portrait_id] = look(self.models.teacher, self.encode(fields.portrait), cameras)
        return self._plain[sample.portrait_id]

    def edit(self, fields: Fields, prompt: str) -> Tensor:
        """The student's triplane (1, 3*C, h, w) by words."""
        tokens = text_tokens(self.models.student, self.models.clip, [prompt]).to(self.settings.run.device)
        return self._edit(fields, tokens, "text")

    def edit_by_image(self, fields: Fields, sample: SampleRef) -> Tensor:
        """The student's triplane (1, 3*C, h, w) by another portrait's pseudo-label."""
        reference = self.reference(sample)[None]
        tokens = image_tokens(self.models.student, self.models.mae, reference).to(self.settings.run.device)
        return self._edit(fields, tokens, "image")

    def reference(self, sample: SampleRef) -> np.ndarray:
        """The picture (H, W, 3) uint8 that asks for the edit of a sample: another portrait's pseudo-label."""
        return read_fields(self.references[sample.key], ["pseudo_label.png"]).pseudo_label

    def taught(self, fields: Fields) -> Tensor:
        """The teacher's triplane (1, 3*C, h, w) of the pseudo-label: as stored, or made again."""
        if fields.triplane is None:
            return self.encode(fields.pseudo_label)
        return torch.from_numpy(fields.triplane)[None].to(self.settings.run.device)

    def find_truths(self, tested: Sequence[SampleRef]) -> dict[str, Truth]:
        """Return the true styled heads by key, those of kept samples from the cache."""
        known = {sample.key: self._truths[sample.key] for sample in tested if sample.key in self._truths}
        truths = known | super().find_truths([sample for sample in tested if sample.key not in known])
        self._truths |= {key: truth for key, truth in truths.items() if key in self._kept}
        return truths

    def encode(self, picture: np.ndarray) -> Tensor:
        """The teacher's triplane (1, 3*C, h, w) of a picture (H, W, 3) uint8."""
        with torch.no_grad():
            return self.models.teacher.encode(signed(picture[None], self.settings.run.device))

    def _edit(self, fields: Fields, tokens: Tensor, kind: Any) -> Tensor:
        with torch.no_grad():
            return self.models.student.encode(signed(fields.portrait[None], self.settings.run.device), tokens, kind)
