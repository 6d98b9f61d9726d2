"""Stage evaluate: the student beside its teachers on portraits and prompts that it never met (3DPE, Table 1).

All methods are seen from the same cameras: the portrait's own (the true one where it is known), and novel ones
around the front. `seconds_per_image` is measured in this run; nothing depends on this stage, so its bytes may differ
each time.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.encoding import encode_json
from data_catalog.errors import UserError
from data_catalog.fingerprint import digest_json
from data_catalog.settings import Settings
from data_catalog.stage import Need, Partition, Stage, Summary, Work
from tasks.evaluation.table import (
    IMAGE_PROMPT,
    METHODS,
    NO_EDIT,
    SEEN_PROMPT,
    STUDENT,
    TEACHERS,
    TEACHERS_AS_EDITED,
    TRUE_HEAD,
    headline,
    make_table,
)
from tasks.progress import report
from tasks.student.files import load_student
from tasks.training.data import Fields, SampleRef, check_no_leakage, read_fields, read_samples

if TYPE_CHECKING:
    from torch import Tensor

    from models.clip import Clip
    from models.editor import Editor
    from models.inference import CpuStudent
    from models.live3d import Live3D
    from models.mae import Mae
    from models.student import Student
    from tasks.evaluation.metrics import Judges, Truth, Views

log = logging.getLogger(__name__)

TABLE, PER_SAMPLE, FIGURE = "table.json", "per_sample.parquet", "evaluation.png"

Row = dict[str, Any]


@dataclass(frozen=True)
class Models:
    """All networks of an evaluation."""

    student: Student | CpuStudent
    teacher: Live3D
    editor: Editor
    clip: Clip
    mae: Mae
    judges: Judges


def run(work: Work) -> Summary:
    """Load the networks and evaluate."""
    return evaluate(work, load_models(work.input("distill").folder, work.settings))


def evaluate(work: Work, models: Models) -> Summary:
    """Measure, time, draw; write the table."""
    from tasks.evaluation.figure import draw_figure
    from tasks.evaluation.pictures import draw_all

    samples = read_samples(work.input("dataset").folder, work.root)
    check_no_leakage(samples)
    tested = choose_tested(samples, work.settings.evaluate.max_samples_per_style)
    references = {sample.style: sample for sample in reversed(samples) if is_reference(sample)}
    evaluation = Evaluation(models, work.settings, references, seen_prompts(samples))
    most = work.settings.evaluate.pictures_per_style
    pictured = {style: mine[:most] for style, mine in group_by_style(tested).items()}
    evaluation.keep_views(pictured)
    rows = evaluation.measure_all(tested)
    timing = time_all(models, tested[0], work.settings)
    table = make_table(rows, timing, work.settings)
    table["pictures"] = draw_all(evaluation, pictured, work.folder)
    draw_figure(table, work.folder / FIGURE)
    (work.folder / TABLE).write_bytes(encode_json(table))
    pq.write_table(pa.Table.from_pylist(rows), work.folder / PER_SAMPLE)
    return Summary(samples=len(tested), metrics=headline(table))


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    chosen = settings.evaluate.model_dump(mode="json")
    return chosen | {"world": settings.world, "edit": settings.edit.model_dump(mode="json", exclude={"batch_size"})}


STAGE = Stage(
    name="evaluate",
    version=3,
    needs=(Need("dataset"), Need("distill")),
    reads=reads,
    models=lambda settings: ("editor", "teacher", "clip", "mae", "identity", "lpips"),
    run=run,
)


def load_models(folder: Path, settings: Settings) -> Models:
    """The student in `folder` and everything it is measured with."""
    from models import zoo
    from models.inference import for_use
    from tasks.evaluation.metrics import Judges

    loaded = {n: zoo.load(n, settings.world, settings.run.device) for n in STAGE.models(settings)}
    judges = Judges(loaded["identity"], loaded["clip"], loaded["lpips"])
    student = for_use(load_student(folder, settings.run.device))
    return Models(student, loaded["teacher"], loaded["editor"], loaded["clip"], loaded["mae"], judges)


def choose_tested(samples: Sequence[SampleRef], most: int | None) -> list[SampleRef]:
    """The test split, at most `most` samples a style (the first ones by key)."""
    tested = [sample for sample in samples if sample.split == "test"]
    if not tested:
        raise UserError(
            "the dataset has no test samples, so there is nothing to evaluate on",
            hint="raise portraits.test_fraction or portraits.count, then stillroom build",
        )
    by_style = group_by_style(tested)
    return [sample for style in sorted(by_style) for sample in by_style[style][:most]]


def group_by_style(samples: Sequence[SampleRef]) -> dict[str, list[SampleRef]]:
    """The samples of each style, in their order."""
    by_style: dict[str, list[SampleRef]] = {}
    for sample in samples:
        by_style.setdefault(sample.style, []).append(sample)
    return by_style


def group_by_portrait(samples: Sequence[SampleRef]) -> dict[str, list[SampleRef]]:
    """The samples of each portrait, in their order."""
    by_portrait: dict[str, list[SampleRef]] = {}
    for sample in samples:
        by_portrait.setdefault(sample.portrait_id, []).append(sample)
    return by_portrait


def seen_prompts(samples: Sequence[SampleRef]) -> dict[str, list[str]]:
    """The words that a student learned from, by style."""
    learned: dict[str, set[str]] = {}
    for sample in samples:
        if sample.split == "train":
            learned.setdefault(sample.style, set()).add(sample.prompt)
    return {style: sorted(prompts) for style, prompts in learned.items()}


def is_reference(sample: SampleRef) -> bool:
    """An image prompt may come from the train split only."""
    return sample.image_prompt and sample.split == "train"


class Evaluation:
    """Views of all methods on all samples; what samples share (a portrait, its truth) is made once."""

    def __init__(
        self,
        models: Models,
        settings: Settings,
        references: dict[str, SampleRef],
        learned: dict[str, list[str]],
    ) -> None:
        """references, learned: by style, the picture and the words of the training that ask for it."""
        self.models, self.settings, self.references, self.learned = models, settings, references, learned
        self._plain: dict[str, Views] = {}
        self._kept: dict[str, dict[str, Views]] = {}
        self._truths: dict[str, Truth] = {}
        self._reference_tokens: dict[str, Tensor] = {}

    def keep_views(self, pictured: Mapping[str, Sequence[SampleRef]]) -> None:
        """What is seen of these samples, by style, and their truth is remembered: they are measured, and then drawn."""
        self._kept |= {sample.key: {} for samples in pictured.values() for sample in samples}

    def measure_all(self, tested: Sequence[SampleRef]) -> list[Row]:
        """One row for each sample and method, by style, key and method."""
        found: dict[str, list[Row]] = {}
        for samples in group_by_portrait(tested).values():
            truths = self.find_truths(samples)  # half of the work
            for sample in samples:
                found[sample.key] = self.measure_sample(sample, truths.get(sample.key))
                report(len(found), len(tested))
        return [row for sample in tested for row in found[sample.key]]

    def measure_sample(self, sample: SampleRef, truth: Truth | None) -> list[Row]:
        """The rows of one sample."""
        from tasks.evaluation.metrics import WITHOUT_TARGET, measure

        fields = read_fields(sample)
        seen: dict[str, Views | np.ndarray] = {**self.views(sample, fields, self.cameras(sample))}
        if truth is not None:
            seen[TRUE_HEAD] = truth.pictures
        rows = []
        for method, views in seen.items():
            values = measure(self.models.judges, views, fields.portrait, sample.prompt, fields.pseudo_label, truth)
            if method == TRUE_HEAD:
                values = {name: value if name in WITHOUT_TARGET else None for name, value in values.items()}
            own = {"key": sample.key, "style": sample.style, "portrait_id": sample.portrait_id, "method": method}
            rows.append(own | {"prompt": sample.prompt, "truth": truth is not None} | values)
        return rows

    def views(self, sample: SampleRef, fields: Fields, cameras: Tensor) -> dict[str, Views]:
        """What each method shows from cameras (V, 25)."""
        from tasks.evaluation.metrics import look

        if kept := self._kept.get(sample.key):
            return kept
        models = self.models
        seen = {
            STUDENT: look(models.student, self.edit(fields, sample.prompt), cameras),
            TEACHERS: look(models.teacher, self.taught(fields), cameras),
            NO_EDIT: self.unedited(sample, fields, cameras),
        }
        if sample.style in self.references:
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
        from tasks.evaluation.metrics import look

        if sample.portrait_id not in self._plain:
            self._plain[sample.portrait_id] = look(self.models.teacher, self.encode(fields.portrait), cameras)
        return self._plain[sample.portrait_id]

    def edit(self, fields: Fields, prompt: str) -> Tensor:
        """The student's triplane (1, 3*C, h, w) by words."""
        tokens = self.models.clip.text_tokens([prompt]).to(self.settings.run.device)
        return self._edit(fields, tokens, "text")

    def edit_by_image(self, fields: Fields, sample: SampleRef) -> Tensor:
        """The student's triplane (1, 3*C, h, w) by another portrait's pseudo-label."""
        if sample.style not in self._reference_tokens:
            picture = read_fields(self.references[sample.style]).pseudo_label
            self._reference_tokens[sample.style] = self.models.mae.tokens(picture[None])
        tokens = self._reference_tokens[sample.style].to(self.settings.run.device)
        return self._edit(fields, tokens, "image")

    def taught(self, fields: Fields) -> Tensor:
        """The teacher's triplane (1, 3*C, h, w) of the pseudo-label: as stored, or made again."""
        import torch

        if fields.triplane is None:
            return self.encode(fields.pseudo_label)
        return torch.from_numpy(fields.triplane)[None].to(self.settings.run.device)

    def cameras(self, sample: SampleRef) -> Tensor:
        """(1 + novel_views, 25): the portrait's camera, the true one where it is known, then those around the front."""
        import torch

        from models.camera import orbit_label

        own = self.settings.evaluate
        angle = torch.arange(own.novel_views) * (2 * torch.pi / own.novel_views)
        around = orbit_label(-own.view_yaw * torch.cos(angle), own.view_pitch * torch.sin(angle))
        return torch.cat([torch.from_numpy(portrait_camera(sample))[None], around])

    def find_truths(self, tested: Sequence[SampleRef]) -> dict[str, Truth]:
        """The true styled heads by key, in the procedural world."""
        from tasks.evaluation.metrics import true_heads

        facts = ("true_camera", "portrait_seed")
        known = [sample for sample in tested if all(sample.row.get(name) is not None for name in facts)]
        truths = {sample.key: self._truths[sample.key] for sample in known if sample.key in self._truths}
        for samples in group_by_portrait([sample for sample in known if sample.key not in truths]).values():
            first, styles = samples[0], [sample.style for sample in samples]
            size = self.settings.align.size
            rays = self.models.teacher.config.renderer.resolution
            heads = true_heads(first.row["portrait_seed"], self.cameras(first).numpy(), size, styles, rays)
            truths |= {sample.key: heads[sample.style] for sample in samples if sample.style in heads}
        self._truths |= {key: truth for key, truth in truths.items() if key in self._kept}
        return truths

    def _edit(self, fields: Fields, tokens: Tensor, kind: Any) -> Tensor:
        import torch

        from models.pixels import signed

        with torch.no_grad():
            return self.models.student.encode(signed(fields.portrait[None], self.settings.run.device), tokens, kind)

    def encode(self, picture: np.ndarray) -> Tensor:
        """The teacher's triplane (1, 3*C, h, w) of a picture (H, W, 3) uint8."""
        import torch

        from models.pixels import signed

        with torch.no_grad():
            return self.models.teacher.encode(signed(picture[None], self.settings.run.device))


def portrait_camera(sample: SampleRef) -> np.ndarray:
    """(25,) float32: the portrait's true camera where it is known, else the estimated one."""
    true = sample.row.get("true_camera")
    return sample.camera if true is None else np.asarray(true, dtype=np.float32)


def time_all(models: Models, sample: SampleRef, settings: Settings) -> dict[str, float]:
    """Seconds for one picture: from the portrait to one view of the edited head.

    The student's prompt is encoded beforehand, once for all portraits; `prompt` is what that takes. The teachers are
    timed at `evaluate.timed_editor_steps`, and at the dataset's own as well if those are others.
    """
    import torch

    from models.pixels import signed
    from tasks.evaluation.stopwatch import time_methods

    device, edit = settings.run.device, settings.edit
    portrait = read_fields(sample).portrait[None]
    image, camera = signed(portrait, device), torch.from_numpy(portrait_camera(sample))[None].to(device)
    tokens = models.clip.text_tokens([sample.prompt]).to(device)
    student, teacher = models.student, models.teacher
    timed_steps = settings.evaluate.timed_editor_steps or edit.steps
    with torch.no_grad():
        triplane = student.encode(image, tokens, "text")

    def teachers(steps: int) -> object:
        scales = (edit.guidance_scale, edit.image_guidance_scale)
        asked = (portrait, [sample.prompt], [sample.seed], steps)
        edited = models.editor.edit(*asked, *scales, scheduler=edit.scheduler)
        return teacher.render(teacher.encode(signed(edited, device)), camera)

    methods = {
        STUDENT: lambda: student.render(student.encode(image, tokens, "text"), camera),
        TEACHERS: lambda: teachers(timed_steps),
        NO_EDIT: lambda: teacher.render(teacher.encode(image), camera),
        "student render": lambda: student.render(triplane, camera),
        "prompt": lambda: models.clip.text_tokens([sample.prompt]),
    }
    if timed_steps != edit.steps:
        methods[TEACHERS_AS_EDITED] = lambda: teachers(edit.steps)
    return time_methods(methods, settings.evaluate.timing_repeats, device)
