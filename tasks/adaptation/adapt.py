"""Stage adapt: a student learns one more style from a few pairs, within a few minutes (3DPE, section 3.3).

Only E_p and the normalisation layers of E_t learn, by the losses and steps of distillation. What comes out is a small
delta: the weights that learned, to be put into their base. The budget is one of time, so that the bytes depend on
the machine; nothing depends on this stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.settings import AdaptSettings, DistillSettings, Settings
from data_catalog.products.students import ADAPTED, DELTA
from data_catalog.samples.encoding import encode_json
from data_catalog.store.stage import Input, Need, Partition, Stage, Summary, Work
from tasks.adaptation.pairs import HELD_OUT, read_pairs
from tasks.distill import Networks
from tasks.progress import report
from tasks.training.data import SampleRef, group_samples, read_samples
from tasks.training.student_files import load_student

if TYPE_CHECKING:
    from models.three_d.student import Student
    from tasks.adaptation.exam import Exam
    from tasks.training.curve import Curve
    from tasks.training.rates import TimedCourse
    from tasks.training.trainer import Trainer

CURVE, PICTURE = "curve.parquet", "samples.png"
LOOKS = "looks.png"  # the held-out edits at each look (3DPE, Figure 5)
PAIRS_SHARE = 1 / 2  # of the samples of a step; the others are rehearsed
LR_END = 0.1  # share of the learning rate that is left at the end
CHECKPOINT_S = 10.0  # of learning between two checkpoints
# The settings of losses and optimizer, which are those of distillation. Not sensitivity_weight: with it the old styles
# lost twice as much (docs/lab/adapting.md).
FROM_DISTILL = (
    *("lambda_2d", "lambda_3d", "image_l2_weight", "image_lpips_weight", "view_lpips_weight"),
    *("triplane_weight", "depth_weight", "weight_decay", "betas", "clip_norm"),
    *("changed_weight", "l2d_target", "image_prompt_fraction", "views_per_sample", "patch_rays", "precision"),
)

Clock = Callable[[], float]
log = logging.getLogger(__name__)


@dataclass
class Findings:
    """Results of the exams: LPIPS of each held-out edit, and of the old styles, by style."""

    curve: list[dict[str, Any]]
    before: np.ndarray  # (Q,)
    after: np.ndarray  # (Q,)
    teachers: float  # mean of the teacher's views of the pseudo-labels: as near as learning all would come
    old_before: dict[str, float] = field(default_factory=dict)
    old_after: dict[str, float] = field(default_factory=dict)


def run(work: Work, clock: Clock | None = None) -> Summary:
    """Load the networks and adapt.  clock: of the budget; by default the wall's, with the device synchronised."""
    from models.zoo import zoo

    names = ("teacher", "lpips", "clip", "mae")
    networks = Networks(*(zoo.load(name, work.settings.world, work.settings.run.device) for name in names))
    return adapt(work, networks, clock)


def adapt(work: Work, networks: Networks, clock: Clock | None = None) -> Summary:
    """Learn for `adapt.seconds` of the clock, from the newest checkpoint that an interrupted run left."""
    from models.three_d.adaptation import learn_only_adaptable
    from tasks.adaptation.exam import Exam
    from tasks.adaptation.rehearsal import rehearse
    from tasks.evaluation.stopwatch import device_clock
    from tasks.training.mirroring import mirror

    settings, base = work.settings, base_of(work)
    clock = clock or device_clock(settings.run.device)
    learned, held_out = read_pairs(work.input("pairs").folder)
    student = load_student(base.folder, settings.run.device)
    old = [s for s in read_samples(work.input("dataset").folder, work.root) if s.style != work.partition.style]
    exam = Exam(held_out, networks.clip, networks.perceptual, settings)
    old_exam = Exam(choose_old(old, settings), networks.clip, networks.perceptual, settings)
    rehearsed = rehearse(student, learned, old, networks, settings, work.working)
    unadapted, old_before = exam.edits(student), old_exam.take(student)
    mirrored = mirror(learned, networks.teacher, settings, work.working) if settings.adapt.mirror else []
    course = course_of(settings)
    trainer = make_trainer(learn_only_adaptable(student), networks, [*learned, *mirrored], rehearsed, settings, course)
    curve = learn(trainer, course, exam, settings, work.working, clock)
    edited, lifted = exam.edits(student), exam.lifted(networks.teacher)
    before, after, teachers = (exam.judge(pictures) for pictures in (unadapted, edited, lifted))
    found = Findings(curve, before, after, float(teachers.mean()), old_before, old_exam.take(student))
    exam.draw([unadapted, edited, lifted], work.folder / PICTURE)
    draw_looks(exam, settings, work)
    return write_products(work, student, found, learned, exam)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    own = settings.adapt.model_dump(mode="json", exclude={"pairs", "held_out", "pairs_folder", "prompt"})
    taught = settings.distill.model_dump(mode="json", include=set(FROM_DISTILL))
    stored = settings.teach.model_dump(mode="json", include={"triplane", "view_format"})  # of what is rehearsed
    return own | {"distill": taught, "teach": stored, "world": settings.world}


STAGE = Stage(
    name="adapt",
    version=2,
    split_by=("style",),
    needs=(Need("pairs"), Need("dataset"), Need("distill")),
    reads=reads,
    models=lambda settings: ("teacher", "clip", "mae", "lpips"),
    run=run,
    resumes=True,
)


def base_of(work: Work) -> Input:
    """Return the student that is adapted: the input that is neither pairs nor dataset."""
    (name,) = work.inputs.keys() - {"pairs", "dataset"}
    return work.input(name)


def choose_old(samples: Sequence[SampleRef], settings: Settings) -> list[SampleRef]:
    """Test samples of the styles that the base knows, `adapt.old_samples` of each, by style and key.

    Each style continues at the portrait where the one before it stopped: few samples of each show many people.
    """
    by_style = group_samples([sample for sample in samples if sample.split == HELD_OUT], "style")
    chosen, most = [], settings.adapt.old_samples
    for number, style in enumerate(sorted(by_style)):
        mine = by_style[style]
        turns = range(number * most, number * most + min(most, len(mine)))
        chosen += [mine[turn] for turn in sorted(turn % len(mine) for turn in turns)]
    return chosen


def make_trainer(
    student: Student,
    networks: Networks,
    learned: Sequence[SampleRef],
    rehearsed: Sequence[SampleRef],
    settings: Settings,
    course: TimedCourse,
) -> Trainer:
    """The trainer of distillation over the parameters that are not frozen, for as long as it is let.

    The pairs have their share of what it meets, however many edits are rehearsed.
    """
    from accelerate import Accelerator

    from tasks.training.batches import BatchMaker, Prompts
    from tasks.training.trainer import Trainer

    device = settings.run.device
    own = student.config.own_encoders
    prompts = Prompts([*learned, *rehearsed], networks.clip, networks.mae, device, own)
    wanted = PAIRS_SHARE / (1.0 - PAIRS_SHARE) * len(rehearsed)
    repeats = max(1, round(wanted / max(1, len(learned))))
    samples = [*reword(learned, repeats), *rehearsed]
    accelerator = Accelerator(cpu=device == "cpu")
    learning = training_settings(settings)
    maker = BatchMaker(student, networks.teacher, prompts, learning, device)
    return Trainer(maker, networks.perceptual, samples, learning, course, accelerator)


def reword(pairs: Sequence[SampleRef], times: int) -> list[SampleRef]:
    """Each pair so many times, with one prompt of the pairs after another, its own first.

    They all ask for the same edit. With one prompt a pair, ten pairs teach which portrait a wording belongs to.
    """
    prompts = sorted({pair.prompt for pair in pairs})
    return [
        replace(pair, prompt=prompts[(prompts.index(pair.prompt) + turn) % len(prompts)])
        for pair in pairs
        for turn in range(times)
    ]


def training_settings(settings: Settings) -> DistillSettings:
    """Losses as in distillation; batches, rates and seed of adapting."""
    own = settings.adapt
    pace = {"batch_size": own.batch_size, "lr": own.lr, "lr_transformer": own.lr_norm, "seed": own.seed}
    taught = settings.distill.model_dump(include=set(FROM_DISTILL))
    return DistillSettings.model_validate({**taught, "memory_mb": settings.distill.memory_mb, **pace})


def course_of(settings: Settings) -> TimedCourse:
    """The course of the learning rates over the seconds of `adapt`."""
    from tasks.training.rates import TimedCourse

    return TimedCourse(settings.adapt.seconds, settings.adapt.warmup, LR_END)


def learn(
    trainer: Trainer, course: TimedCourse, exam: Exam, settings: Settings, working: Path, clock: Clock
) -> list[dict[str, Any]]:
    """Take steps until the time is up. Returns the curve: rows with `seconds`, and `lpips` where there was a look.

    The time of a step is counted, that of looks and checkpoints is not: the budget is of learning.
    """
    from tasks.training.checkpoints import Checkpoints
    from tasks.training.curve import Curve

    own, curve = settings.adapt, Curve()
    checkpoints = Checkpoints(working, {"trainer": trainer, "curve": curve}, trainer.maker.device)
    checkpoints.resume()
    looks = look_times(own)
    todo = looks[len(looked_at(curve.rows)) :]  # a step may end after several of them: each has its row
    trainer.student.train()
    for stop, is_look in stops(looks):
        if stop not in todo if is_look else stop <= course.spent:
            continue
        train_until(stop, trainer, course, curve, own, clock)
        seen = {"lpips": look(exam, trainer.student, working / look_name(stop))} if is_look else {}
        values = curve.point(trainer.taken, {"seconds": course.spent, **seen})
        checkpoints.save(trainer.taken)
        report(round(course.spent), round(own.seconds), values)
    trainer.finish()
    return curve.rows


def looked_at(curve: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a curve at which there was a look."""
    return [row for row in curve if row.get("lpips") is not None]


def stops(looks: Sequence[float]) -> list[tuple[float, bool]]:
    """Return the seconds at which learning pauses, and whether for a look or only for a checkpoint."""
    between = {second for second in np.arange(CHECKPOINT_S, looks[-1], CHECKPOINT_S) if second not in looks}
    return sorted([(float(second), False) for second in between] + [(second, True) for second in looks])


def train_until(
    stop: float, trainer: Trainer, course: TimedCourse, curve: Curve, own: AdaptSettings, clock: Clock
) -> None:
    """Take steps until so many seconds are spent.

    Views are compared once the triplanes alone have had their share of the time.
    """
    while course.spent < stop:
        began = clock()
        curve.pending.append(trainer.step(with_views=course.spent >= own.triplane_share * own.seconds))
        course.spent += clock() - began
        trainer.schedule.step()


def look_times(own: AdaptSettings) -> list[float]:
    """Return the seconds of the looks: before, at those of the settings, and at the end."""
    return [0.0, *sorted({second for second in own.looks_s if second < own.seconds}), own.seconds]


def look_name(second: float) -> str:
    """The file of a look's pictures."""
    return f"look-{second:g}.npy"


def look(exam: Exam, student: Student, path: Path) -> float:
    """Edit what is held out, and keep the pictures. Returns their mean LPIPS."""
    edited = exam.edits(student)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack(edited))
    value = float(exam.judge(edited).mean())
    log.info("adapt      LPIPS to what is held out %.3f", value)
    return value


def draw_looks(exam: Exam, settings: Settings, work: Work) -> None:
    """Draw the held-out edits at each look side by side, the unadapted student's first."""
    times = look_times(settings.adapt)
    columns = [np.load(work.working / look_name(second)) for second in times]
    names = [f"{second / 60:g} min" if second >= 60 else f"{second:g} s" for second in times]
    exam.draw(columns, work.folder / LOOKS, names)


def write_products(work: Work, student: Student, found: Findings, learned: Sequence[SampleRef], exam: Exam) -> Summary:
    """The delta, what it belongs to, its curve."""
    from safetensors.torch import save_file

    from models.three_d.adaptation import read_delta
    from tasks.training.curve import COLUMNS

    save_file(read_delta(student), work.folder / DELTA)
    base = base_of(work)
    document = {
        "style": work.partition.style,
        "student": base.digest,
        "prompts": sorted({sample.prompt for sample in learned}),
        "pairs": sorted(sample.key for sample in learned),
        "curve": [{"seconds": row["seconds"], "lpips": row["lpips"]} for row in looked_at(found.curve)],
        "held_out": len(exam.questions),
        "lpips_to": exam.aim,
        "old_styles": {
            style: {"before": before, "after": found.old_after[style]} for style, before in found.old_before.items()
        },
    }
    (work.folder / ADAPTED).write_bytes(encode_json(document))
    columns = [("step", pa.int64()), *((name, pa.float64()) for name in ("seconds", "lpips", *COLUMNS))]
    pq.write_table(pa.Table.from_pylist(found.curve, schema=pa.schema(columns)), work.folder / CURVE)
    return Summary(samples=len(learned), metrics=headline(found))


def headline(found: Findings) -> dict[str, float]:
    """Return the metrics for the record. Gains and `old_loss` are shares of the unadapted student's LPIPS."""
    from tasks.adaptation.exam import gain_interval

    last = looked_at(found.curve)[-1]
    first, after = float(found.before.mean()), float(found.after.mean())
    low, high = gain_interval(found.before, found.after)
    metrics = {"lpips_before": first, "lpips": after, "lpips_teachers": found.teachers}
    metrics |= {"gain": 1.0 - after / first, "gain_low": low, "gain_high": high}
    metrics |= {"gain_possible": 1.0 - found.teachers / first}
    metrics |= {"learned_s": last["seconds"], "iterations": float(last["step"])}
    if found.old_before:
        before, after = (sum(values.values()) / len(values) for values in (found.old_before, found.old_after))
        metrics |= {"old_lpips_before": before, "old_lpips": after, "old_loss": after / before - 1.0}
    return metrics
