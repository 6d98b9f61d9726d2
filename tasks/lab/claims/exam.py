"""Measurement of the claims' arms: on held-out portraits and prompts, against the true styled heads.

The measures are those of the stage evaluate, and `colours`, which depends on appearance and not on structure. Heads by
Live3D with random weights in a branch are compared with those by Live3D as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_catalog.config.errors import UserError
from data_catalog.config.settings import DistillSettings, Settings
from data_catalog.samples.seeds import derive
from data_catalog.store.stage import Work
from models.pixels import signed, to_levels
from models.three_d.student import Features
from tasks.evaluate import choose_tested, training_poses
from tasks.evaluation.methods import Evaluation, Models
from tasks.evaluation.metrics import MEASURES, TRUE_MEASURES, Judges, Truth, Views, look, measure
from tasks.evaluation.scene import Scene
from tasks.evaluation.stopwatch import time_all
from tasks.evaluation.table import STUDENT, TEACHERS
from tasks.pictures.sheets import contact_sheet
from tasks.training.data import Fields, SampleRef, check_no_leakage, read_fields, read_samples
from tasks.training.reading import text_tokens

if TYPE_CHECKING:
    from models.three_d.live3d import Live3D
    from models.three_d.student import Student

NO_HIGH, NO_LOW = "E_high off", "E_low off"  # the student with one branch switched off at use
# Live3D's head of the portrait, and the same with random weights in a branch.
LIFTED, LIFTED_NO_HIGH, LIFTED_NO_LOW = "Live3D", "Live3D, E_high random", "Live3D, E_low random"
LOW, HIGH = ("encoder", "decoder", "F_encoder"), ("EHigh_encoder",)  # the parts of the branches
NETWORKS = ("editor", "teacher", "clip", "mae", "lpips")
SHOWN = 3  # samples in a strip, of one portrait
NOVEL = 1  # the view that a strip shows beside the input view
TRUE = "truth"
PAPER_EDITOR_STEPS = 100
MOVED = ("colours_moved", "depth_moved", "silhouette_kept")  # measures of `compare_heads`
NEAR, FAR = 2.35, 2.85  # world units from the camera: the front of a head, and behind its ears

Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """Shared parts of all arms: networks, samples, truth."""

    models: Models  # its student is that of no arm
    settings: Settings
    samples: list[SampleRef]
    tested: list[SampleRef]
    fields: dict[str, Fields]  # of the tested ones
    truths: dict[str, Truth]
    poses: np.ndarray  # (N, 25), of the training


def open_bench(work: Work) -> Bench:
    """Return the bench of an arm; cached for arms that differ in their training only."""
    settings = work.settings.model_copy(update={"distill": DistillSettings()})
    return _load_bench(work.input("dataset").folder, work.root, settings.model_dump_json())


@lru_cache(maxsize=1)
def _load_bench(folder: Path, root: Path, settings_json: str) -> Bench:
    from models.zoo import zoo

    settings = Settings.model_validate_json(settings_json)
    world, device = settings.world, settings.run.device
    editor, teacher, clip, mae, lpips = (zoo.load(name, world, device) for name in NETWORKS)
    judges = Judges(zoo.load_recogniser(world, device), clip, lpips)
    return make_bench(folder, root, settings, Models(teacher, teacher, editor, clip, mae, judges))


def make_bench(folder: Path, root: Path, settings: Settings, models: Models) -> Bench:
    """Read the dataset in `folder`, only the chosen styles of it, and render the truth."""
    styles = settings.prompts.styles
    samples = [s for s in read_samples(folder, root) if styles is None or s.style in styles]
    if not samples:
        raise UserError("the dataset has none of the chosen styles", styles=", ".join(styles or []))
    check_no_leakage(samples)
    tested, poses = choose_tested(samples, settings.evaluate), training_poses(samples)
    truths = Scene(settings, poses, models.teacher.config.renderer.resolution).find_truths(tested)
    return Bench(models, settings, samples, tested, {s.key: read_fields(s) for s in tested}, truths, poses)


class Exam:
    """A student at the tested samples."""

    def __init__(self, bench: Bench, student: Student) -> None:
        self.bench, self.student = bench, student
        self.evaluation = Evaluation(replace(bench.models, student=student), bench.settings, {}, {}, bench.poses)
        teacher, seed = bench.models.teacher, bench.settings.distill.seed
        self._lifts: dict[str, Callable[[], Live3D]] = {
            LIFTED: lambda: teacher,
            LIFTED_NO_HIGH: cache(lambda: with_random(teacher, HIGH, seed)),
            LIFTED_NO_LOW: cache(lambda: with_random(teacher, LOW, seed)),
        }
        self._lifted: dict[tuple[str, str], Views] = {}  # by method and portrait: all styles share them

    def take(self, methods: Sequence[str]) -> list[Row]:
        """Return a row for each sample and method."""
        judges, rows = self.bench.models.judges, []
        for sample in self.bench.tested:
            fields, truth = self.bench.fields[sample.key], self.bench.truths.get(sample.key)
            own = {"key": sample.key, "style": sample.style, "portrait_id": sample.portrait_id}
            for method in methods:
                views = self.views(method, sample)
                if method in self._lifts:  # of the portrait, which nothing edited
                    found, far = dict.fromkeys((*MEASURES, *TRUE_MEASURES)), None
                    moved = compare_heads(views, self.views(LIFTED, sample))
                else:
                    found = measure(judges, views, self.evaluation.ask(sample, fields), truth)
                    far, moved = colours(views.pictures[0], _aim(fields, truth)), dict.fromkeys(MOVED)
                rows.append({**own, "method": method, **found, "colours": far, **moved})
        return rows

    def look(self) -> list[Row]:
        """LPIPS from the portrait's camera, one row for each sample: cheap enough to be taken on the way."""
        rows = []
        for sample in self.bench.tested:
            fields, truth = self.bench.fields[sample.key], self.bench.truths.get(sample.key)
            triplane = self.evaluation.edit(fields, sample.prompt)
            picture = look(self.student, triplane, self.evaluation.cameras(sample)[:1]).pictures
            pair = [signed(each, triplane.device) for each in (picture, _aim(fields, truth)[None])]
            with torch.no_grad():
                lpips = float(self.bench.models.judges.lpips(*pair).mean())
            rows.append({"key": sample.key, "portrait_id": sample.portrait_id, "lpips": lpips})
        return rows

    def views(self, method: str, sample: SampleRef) -> Views:
        """Return the views of a sample by a method: from the portrait's camera, the novel ones, and pairs of poses."""
        fields, cameras = self.bench.fields[sample.key], self.evaluation.all_cameras(sample)
        if method in self._lifts:
            return self._lift(method, sample, fields, cameras)
        if method == TEACHERS:
            return look(self.bench.models.teacher, self.evaluation.taught(fields), cameras)
        if method in (NO_HIGH, NO_LOW):
            return look(self.student, self._edit_without(method, fields, sample), cameras)
        return look(self.student, self.evaluation.edit(fields, sample.prompt), cameras)

    def _lift(self, method: str, sample: SampleRef, fields: Fields, cameras: torch.Tensor) -> Views:
        """Views of the portrait's head by Live3D, whole or with random weights in a branch."""
        key = (method, sample.portrait_id)
        if key not in self._lifted:
            live3d = self._lifts[method]()
            with torch.no_grad():
                triplane = live3d.encode(signed(fields.portrait[None], self.bench.settings.run.device))
            self._lifted[key] = look(live3d, triplane, cameras)
        return self._lifted[key]

    def _edit_without(self, method: str, fields: Fields, sample: SampleRef) -> torch.Tensor:
        """The student's triplane (1, 3*C, h, w) with the features of one frozen branch set to 0."""
        device = self.bench.settings.run.device
        seen = self.student.features(signed(fields.portrait[None], device))
        low, high = (part * (method != off) for part, off in zip(seen, (NO_LOW, NO_HIGH), strict=True))
        tokens = text_tokens(self.student, self.bench.models.clip, [sample.prompt]).to(device)
        with torch.no_grad():
            return self.student.edit(Features(low, high), tokens, "text")

    def draw(self, method: str) -> np.ndarray:
        """A strip (H, W, 3) uint8: of some styles of the first portrait the input view, a novel one and its depth."""
        rows = []
        for sample in self._shown():
            views = _true_views(self.bench.truths[sample.key]) if method == TRUE else self.views(method, sample)
            pictures, side = views.pictures, views.pictures.shape[1]
            depth = np.where(views.opacity[NOVEL] > 0.5, views.depth[NOVEL], np.inf)
            rows.append([pictures[0], pictures[NOVEL], _grow(shade(depth), side)])
        return contact_sheet(rows)

    def methods_to_draw(self, methods: Sequence[str]) -> list[str]:
        """The methods, and the truth where it is known."""
        known = all(sample.key in self.bench.truths for sample in self._shown())
        return [*([TRUE] if known else []), *methods]

    def _shown(self) -> list[SampleRef]:
        first = self.bench.tested[0].portrait_id
        return [sample for sample in self.bench.tested if sample.portrait_id == first][:SHOWN]

    def time(self) -> list[Row]:
        """Seconds for one picture, each repetition on its own: at the paper's editor steps, and at the profile's."""
        from models.three_d.inference import for_use

        settings, models = self.bench.settings, replace(self.bench.models, student=for_use(self.student))
        once = settings.evaluate.model_copy(update={"timing_repeats": 1, "timed_editor_steps": None})
        rows = []
        for steps in sorted({PAPER_EDITOR_STEPS, settings.edit.steps}):
            chosen = {"edit": settings.edit.model_copy(update={"steps": steps}), "evaluate": once}
            for _ in range(settings.evaluate.timing_repeats):
                seconds = time_all(models, self.bench.tested[0], settings.model_copy(update=chosen))
                rows.append({"editor_steps": steps, STUDENT: seconds[STUDENT], TEACHERS: seconds[TEACHERS]})
        return rows


def with_random(teacher: Live3D, parts: Sequence[str], seed: int) -> Live3D:
    """Return Live3D with new random weights in some parts of its encoder (3DPE, Figure 3)."""
    changed = deepcopy(teacher)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive("random branch", seed))
        drawn = type(teacher)(teacher.config).encoder
    for part in parts:
        changed.encoder.get_submodule(part).load_state_dict(drawn.get_submodule(part).state_dict())
    return changed.eval().requires_grad_(False)


def compare_heads(views: Views, whole: Views) -> dict[str, float | None]:
    """Return how far a head is from the one that Live3D makes, from the same cameras.

    colours_moved: see `colours`.  depth_moved: median over the pixels of both heads, relative.  silhouette_kept:
    intersection over union.
    """
    solid, was = views.opacity > 0.5, whole.opacity > 0.5
    both, either = solid & was, solid | was
    moved = np.abs(views.depth[both] - whole.depth[both]) / whole.depth[both]
    return {
        "colours_moved": colours(views.pictures[0], whole.pictures[0]),
        "depth_moved": float(np.median(moved)) if both.any() else None,
        "silhouette_kept": float(both.sum() / either.sum()) if either.any() else None,
    }


def colours(picture: np.ndarray, aim: np.ndarray) -> float:
    """Return the distance between the colours of two pictures (H, W, 3) uint8, wherever in the picture they are.

    It is the mean over channels of the Wasserstein distance of their levels, in [0, 1].
    """
    ordered = [np.sort(each.reshape(-1, 3).astype(float), axis=0) for each in (picture, aim)]
    return float(np.abs(ordered[0] - ordered[1]).mean() / 255.0)


def shade(depth: np.ndarray) -> np.ndarray:
    """depth: (h, w), world units along the ray, inf off the head.  Returns (h, w, 3) uint8, the same grey for the same
    depth in every picture: near is bright."""
    nearness = np.clip((FAR - depth) / (FAR - NEAR), 0.0, 1.0)
    levels = to_levels(nearness)
    return np.repeat(levels[..., None], 3, axis=-1)


def _aim(fields: Fields, truth: Truth | None) -> np.ndarray:
    """(H, W, 3) uint8: the true styled head, or the pseudo-label where that is not known."""
    return fields.pseudo_label if truth is None else truth.pictures[0]


def _true_views(truth: Truth) -> Views:
    assert truth.depth is not None
    head = np.isfinite(truth.depth)
    return Views(truth.pictures, np.where(head, truth.depth, 0.0), head.astype(np.float32))


def _grow(picture: np.ndarray, side: int) -> np.ndarray:
    factor = side // picture.shape[0]
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
