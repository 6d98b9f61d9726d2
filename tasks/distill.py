"""Stage distill: the student learns from the teachers' samples (3DPE, section 3.2).

Only E_p and E_t learn; `distill.prompt_encoder` says whether CLIP's text transformer and the MAE belong to E_p. The
frozen branches see each portrait once. Every random choice is a function of (seed, step), so that a run that was killed
continues bit for bit from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.progress import report
from tasks.training.data import SampleRef, check_no_leakage, check_stored, read_samples
from tasks.training.student_files import save_student

if TYPE_CHECKING:
    from models.judges.clip import Clip
    from models.three_d.live3d import Live3D
    from models.three_d.losses import PerceptualDistance
    from models.three_d.mae import Mae
    from models.three_d.student import PromptKind, Student
    from tasks.training.batches import Prompts
    from tasks.training.curve import Curve

log = logging.getLogger(__name__)

CURVE, SAMPLES_PICTURE, TRAINING = "curve.parquet", "samples.png", "training.json"
NOT_IN_FINGERPRINT = ("memory_mb", "checkpoint_every", "micro_batch")
# Without effect where stored views are compared.
OF_NEW_VIEWS = ("teacher", "view_yaw_range", "view_pitch_range", "view_fov_range", "view_center_range")


@dataclass(frozen=True)
class Networks:
    """Frozen networks of the training: teacher, metric, and encoders of prompts."""

    teacher: Live3D
    perceptual: PerceptualDistance
    clip: Clip
    mae: Mae


def run(work: Work) -> Summary:
    """Train, in this process or in several."""
    from tasks.training.processes import count_processes, train_together

    if count_processes(work.settings) == 1:
        return train_alone(work)
    return train_together(work, train_alone)


def train_alone(work: Work) -> Summary:
    """Load the networks and train on a batch, or on one process's share of it."""
    from models.zoo import zoo

    names = ("teacher", "lpips", "clip", "mae")
    return distill(work, Networks(*(zoo.load(n, work.settings.world, work.settings.run.device) for n in names)))


def distill(work: Work, networks: Networks) -> Summary:
    """Train to the last iteration, from the newest checkpoint that an interrupted run left in `work.working`."""
    from accelerate import PartialState

    from tasks.training.batches import BatchMaker, Prompts
    from tasks.training.looks import Looks
    from tasks.training.loop import course_of, train
    from tasks.training.mirroring import learned_samples
    from tasks.training.processes import make_accelerator
    from tasks.training.trainer import Trainer

    settings, own, device = work.settings, work.settings.distill, work.settings.run.device
    samples = read_samples(work.input("dataset").folder, work.root)
    check_no_leakage(samples)
    check_stored(samples)
    learned = learned_samples(samples, networks.teacher, settings, work.working)
    watched = [sample for sample in samples if sample.split == "val"] or learned
    prompts = Prompts(samples, networks.clip, networks.mae, device, own_kinds(settings))
    student = make_student(networks.teacher, prompts, settings)
    maker = BatchMaker(student, networks.teacher, prompts, own, device)
    accelerator = make_accelerator(settings, student)
    trainer = Trainer(maker, networks.perceptual, learned, own, course_of(own), accelerator)
    looks = Looks(maker, networks.perceptual, watched)
    curve = train(trainer, own, work.working, looks.measure, looks.draw, report)
    if PartialState().is_main_process:
        write_products(work, student, curve, learned)
    return Summary(samples=sum(sample.split == "train" for sample in samples), metrics=curve.last())


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    return chosen_settings(settings) | {"world": settings.world}


def chosen_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that decide on the student's bytes."""
    unread = {*NOT_IN_FINGERPRINT, *(OF_NEW_VIEWS if settings.distill.teacher == "cached" else ())}
    return settings.distill.model_dump(mode="json", exclude=unread)


STAGE = Stage(
    name="distill",
    version=3,
    needs=(Need("dataset"),),
    reads=reads,
    models=lambda settings: ("teacher", "clip", "mae", "lpips"),
    run=run,
    resumes=True,
    command="distill",
)


def own_kinds(settings: Settings) -> tuple[PromptKind, ...]:
    """The kinds of prompt whose encoders are part of the student and learn."""
    return ("text", "image") if settings.distill.prompt_encoder == "learn" else ()


def make_student(teacher: Live3D, prompts: Prompts, settings: Settings) -> Student:
    """A student that starts as the teacher; the rest of E_p is drawn from the seed.

    Where E_p's own encoders learn, they start as the frozen ones, of which `prompts` has the tokens otherwise.
    """
    import torch

    from models.three_d import student as networks

    sizes = networks.EMBEDDED if settings.world == "embedded" else networks.PAPER
    clip, mae, own = prompts.reader.clip, prompts.reader.mae, own_kinds(settings)
    config = replace(
        sizes,
        live3d=teacher.config,
        text_token_size=int(clip.model.config.text_config.hidden_size),
        image_token_size=mae.encoder.config.width,
        text=clip.text_config() if "text" in own else None,
        mae=mae.encoder.config if "image" in own else None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.distill.seed)  # layers draw from the global generator; it is put back
        student = networks.Student.from_teacher(teacher, config)
    prompted = student.encoder.Ref_encoder
    if prompted.text_encoder is not None:
        prompted.text_encoder.load_state_dict(clip.model.text_model.state_dict())
    if prompted.mae_encoder is not None:
        prompted.mae_encoder.load_state_dict(mae.encoder.state_dict())
    return student.to(settings.run.device)


def write_products(work: Work, student: Student, curve: Curve, learned: list[SampleRef]) -> None:
    """Write the student, its curve and its last picture."""
    from tasks.training.curve import COLUMNS

    save_student(student, work.folder)
    columns = pa.schema([("step", pa.int64()), *((name, pa.float64()) for name in COLUMNS)])
    pq.write_table(pa.Table.from_pylist(curve.rows, schema=columns), work.folder / CURVE)
    grids = sorted(work.working.glob("samples-*.png"))
    shutil.copyfile(grids[-1], work.folder / SAMPLES_PICTURE)
    settings = chosen_settings(work.settings)
    document = {"world": work.settings.world, "profile": work.settings.profile, "settings": settings}
    document["styles"] = sorted({sample.style for sample in learned})
    (work.folder / TRAINING).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
