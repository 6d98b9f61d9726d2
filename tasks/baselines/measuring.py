"""Measure one method on the held-out portraits of one style, by text and by picture, as `evaluate` measures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.config.styles import list_styles, read_style, style_path
from data_catalog.samples.seeds import derive
from data_catalog.store.stage import BASELINE, Need, Partition, Stage, Summary, Work
from models.judges.captioner import Retrieval
from models.three_d.inference import for_use
from models.zoo import zoo
from tasks.baselines.protocol import Diverged, Edit, Edited, Networks, Portrait, Prompt
from tasks.evaluate import choose_references, training_poses
from tasks.evaluation.metrics import MEASURES, TRUE_MEASURES, Judges, look, measure, summarise
from tasks.evaluation.scene import Scene, portrait_camera
from tasks.evaluation.stopwatch import device_clock
from tasks.language.paraphrase import captions
from tasks.pictures.sheets import write_png
from tasks.progress import Pace, report
from tasks.training.data import SampleRef, check_no_leakage, group_samples, read_fields, read_samples
from tasks.training.student_files import load_student

ROWS, PICTURES = "per_sample.parquet", "views"
TEXT, IMAGE = "text", "image"  # kinds of prompt
OWN = ("reconstruction_psnr", "seconds_per_image")  # columns that `evaluate` has not
NAMES = ("key", "style", "portrait_id", "method", "kind", "prompt")
ROW_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in NAMES),
        ("truth", pa.bool_()),
        *((name, pa.float64()) for name in (*MEASURES, *TRUE_MEASURES, *OWN)),
    ]
)
EVERY = ("teacher", "clip", "identity", "landmarks", "lpips")  # networks of every method's measures

VIEWS = ("novel_views", "view_yaw", "view_pitch", "pose_pairs", "seed")  # settings of `evaluate`

log = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """Method of the table.

    steered: it optimises CLIP itself, so that CLIP_r does not judge it.  needs: networks beside those of the measures.
    reads: beginnings of the settings of `baselines` that it depends on.
    """

    name: str
    title: str
    steered: bool
    needs: tuple[str, ...]
    reads: tuple[str, ...] = ()

    def networks(self, world: str) -> tuple[str, ...]:
        """Names of its networks in a world; captions are retrieved where no network writes them."""
        return (*EVERY, *(name for name in self.needs if name != "captioner" or world == "paper"))


def declare(method: Method, run: Callable[[Work], Summary]) -> Stage:
    """The stage of a method: `baseline/<method>/<style>`. Only the student's needs the student."""

    def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
        every, read = settings.baselines.model_dump(mode="json"), ("portraits", "seed", *method.reads)
        own: dict[str, Any] = {"baselines": {key: value for key, value in every.items() if key.startswith(read)}}
        own["views"] = settings.evaluate.model_dump(mode="json", include={*VIEWS})
        if "editor" in method.needs:
            own["edit"] = settings.edit.model_dump(
                mode="json", include={"guidance_scale", "image_guidance_scale", "scheduler"}
            )
            own["steps"] = editor_steps(settings)
        if "captioner" in method.needs:
            own["captions"] = style_captions(settings) if settings.world == "embedded" else None
        return own | {"world": settings.world}

    return Stage(
        name=f"{BASELINE}/{method.name}",
        version=2,
        split_by=("style",),
        needs=(Need("dataset"), *([Need("distill")] if method.name == "ours" else [])),
        reads=reads,
        models=lambda settings: method.networks(settings.world),
        run=run,
        what="edits",
    )


def run_method(work: Work, method: Method, edit: Edit) -> Summary:
    """Edit and measure the portraits of the partition's style; write a row and a strip of views for each edit."""
    samples = read_samples(work.input("dataset").folder, work.root)
    check_no_leakage(samples)
    tested, references = choose_edits(work, samples)
    scene, judges, networks = load(work, method, samples)
    (work.folder / PICTURES).mkdir()
    rows: list[Row] = []
    rejected: Counter[str] = Counter()
    pace = Pace()
    for done, sample in enumerate(tested, start=1):
        fields = read_fields(sample)
        seed = derive("baselines", work.settings.baselines.seed, sample.portrait_id) % 2**31
        portrait = Portrait(fields.portrait, portrait_camera(sample), work.settings.run.device, seed)
        truth = scene.find_truths([sample]).get(sample.key)
        for kind, prompt in prompts_of(sample, references).items():
            own = {"key": sample.key, "style": sample.style, "portrait_id": sample.portrait_id, "method": method.name}
            own |= {"kind": kind, "prompt": sample.prompt}
            try:
                if not (method.steered or rows):  # nothing of an optimisation's time, but most of a single pass's
                    edit(networks, portrait, prompt, work.settings)
                edited, seconds = timed(edit, networks, portrait, prompt, work.settings)
                views = look(edited.model, edited.triplane, scene.all_cameras(sample))
                if not np.isfinite(views.depth).all():
                    raise Diverged(f"{method.title}: the edited head is not finite")
            except Diverged as error:
                rejected[str(error)] += 1
                continue
            values = measure(judges, views, scene.ask(sample, fields), truth, prompt.picture)
            if kind == IMAGE:
                values["clip"] = values["clip_image"]  # the paper's CLIP_r is to the prompt as it was given
            values |= {"reconstruction_psnr": reconstruction(edited, portrait), "seconds_per_image": seconds}
            rows.append({**own, "truth": truth is not None, **values})
            shown = views.pictures[: len(scene.cameras(sample))]
            write_png(work.folder / PICTURES / f"{sample.key}-{kind}.png", np.concatenate(list(shown), axis=1))
        log.info("%s %s: portrait %s", method.title, work.partition.style, pace.told(done, len(tested)))
        report(done, len(tested))
    pq.write_table(pa.Table.from_pylist(rows, ROW_SCHEMA), work.folder / ROWS)
    means = {name: value for name, value in means_of(rows).items() if value is not None}
    return Summary(samples=len(rows), rejected=dict(rejected), metrics=means)


def load(work: Work, method: Method, samples: Sequence[SampleRef]) -> tuple[Scene, Judges, Networks]:
    """Load the networks of the measures and of a method, and set the scene."""
    settings = work.settings
    world, device = settings.world, settings.run.device
    found = {name: zoo.load(name, world, device) for name in method.networks(world)}
    for name in ("clip", "identity", "lpips", "teacher"):
        found[name].requires_grad_(False)
    captioner = found.get("captioner")
    if "captioner" in method.needs and captioner is None:
        captioner = Retrieval(found["clip"], style_captions(settings))
    student = for_use(load_student(work.input("distill").folder, device)) if method.name == "ours" else None
    editor, mae = found.get("editor"), found.get("mae")
    judges = Judges(zoo.load_recogniser(world, device), found["clip"], found["lpips"])
    networks = Networks(
        teacher=found["teacher"], clip=found["clip"], identity=judges.identity, lpips=found["lpips"], editor=editor,
        mae=mae, student=student, inverter=found.get("generator"), captioner=captioner,
    )  # fmt: skip
    return Scene(settings, training_poses(samples), found["teacher"].config.renderer.resolution), judges, networks


def choose_edits(work: Work, samples: Sequence[SampleRef]) -> tuple[list[SampleRef], dict[str, SampleRef]]:
    """Choose the style's samples of the first test portraits, and the image prompt of each, by key.

    The portraits are the first by their ids of all that the test split has, so that each style has the same ones.
    """
    by_portrait = group_samples([sample for sample in samples if sample.split == "test"], "portrait_id")
    chosen = sorted(by_portrait)[: work.settings.baselines.portraits]
    mine = [each for name in chosen for each in by_portrait[name] if each.style == work.partition.style]
    if not mine:
        raise UserError(
            "the dataset has no test samples of this style",
            style=work.partition.style,
            hint="raise portraits.test_fraction or portraits.count, then stillroom build",
        )
    one_each = {sample.portrait_id: sample for sample in reversed(mine)}
    return [one_each[name] for name in sorted(one_each)], choose_references(samples)


def prompts_of(sample: SampleRef, references: dict[str, SampleRef]) -> dict[str, Prompt]:
    """The prompts of a sample by kind: its words, and another portrait's pseudo-label where there is one."""
    wishes = {TEXT: Prompt(text=sample.prompt)}
    if sample.key in references:
        picture = read_fields(references[sample.key], ["pseudo_label.png"]).pseudo_label
        wishes[IMAGE] = Prompt(picture=picture)
    return wishes


def timed(
    edit: Edit, networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings
) -> tuple[Edited, float]:
    """Edit; returns the result and the seconds from the portrait to one view of it, as `evaluate` takes them.

    Work that an earlier prompt of the portrait did counts again.
    """
    clock, spared = device_clock(portrait.device), portrait.spared
    started = clock()
    edited = edit(networks, portrait, prompt, settings)
    with torch.no_grad():
        edited.model.render(edited.triplane, portrait.label)
    return edited, clock() - started + portrait.spared - spared


def reconstruction(edited: Edited, portrait: Portrait) -> float | None:
    """PSNR in dB of the method's own unedited head at the portrait's camera."""
    if edited.unedited is None:
        return None
    seen = look(edited.unedited.model, edited.unedited.triplane, portrait.label).pictures[0]
    error = np.mean(((seen.astype(np.float64) - portrait.picture) / 255) ** 2)
    return float(-10 * np.log10(max(float(error), 1e-10)))


def means_of(rows: Sequence[Row]) -> dict[str, float | None]:
    """Means of `evaluate`'s measures by its keys, and of those that are this table's own."""
    means = summarise(rows)
    for name in OWN:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means


def editor_steps(settings: Settings) -> int:
    """Steps of the editor in this table: those that it is timed with."""
    return settings.evaluate.timed_editor_steps or settings.edit.steps


def style_captions(settings: Settings) -> list[str]:
    """The caption of every style of the settings, as directional CLIP has it."""
    styles = [read_style(style_path(settings, slug)) for slug in list_styles(settings)]
    return [style.target_caption or captions(style.seed_prompt)[1] for style in styles]
