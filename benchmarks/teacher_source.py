"""Where should a student's targets come from: stored views, new views of stored triplanes, or a teacher at each step?

    .venv/bin/python -m benchmarks.teacher_source --data DATA_ROOT --root FOLDER [--figure docs/teacher-source.png]

From the newest dataset of DATA_ROOT (of the embedded world), some styles are taught again with eight views a sample,
with triplanes as fp16, as q8 and not stored at all. Students learn from each source: the first steps compare
triplanes and are shared by the sources whose triplanes are equal, the rest compare views. Then each is held against
the true styled heads of portraits and prompts that it never met. Seconds are of the process's CPU, on one thread:
a busy machine does not change them.

Everything is kept below FOLDER: the same command goes on where it was interrupted, and at the end only draws.
"""

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table

from data_catalog.config.settings import DistillSettings, Settings, TeachSettings
from data_catalog.products.snapshot import open_snapshot
from data_catalog.samples.encoding import encode_png
from data_catalog.samples.shard_index import read_index
from data_catalog.samples.shards import Sample, write_shard
from models.camera import orbit_label
from models.judges.perceptual import Perceptual
from models.pixels import signed
from models.zoo import zoo
from tasks.distill import make_student
from tasks.evaluation.methods import portrait_camera
from tasks.evaluation.metrics import Judges, Truth, measure, render_views, true_heads
from tasks.teach import Lesson, Teachers, draw_view_cameras, encode_lesson, teach_sample
from tasks.training.batches import BatchMaker, Prompts
from tasks.training.checkpoints import Checkpoints
from tasks.training.data import SampleRef, read_fields, read_samples
from tasks.training.loop import course_of
from tasks.training.trainer import Trainer

STYLES = ("bronze-statue", "elf-ears", "red-hair")  # a recolouring of everything, a change of shape, a small edit
SEEDS = (0, 1, 2)
MOST_VIEWS = 8
TESTED = 10  # portraits of the test split
SIZE, YAW = 64, 0.35
MEASURES = ("l1_changed", "psnr_novel", "lpips_novel", "clip")
DRAWS = 2000  # of the bootstrap
REFERENCE = "cached, 4 views"
Row = dict[str, Any]


class Source(NamedTuple):
    """Where a student's targets come from."""

    name: str
    teacher: str  # of the settings
    triplane: str
    views: int


SOURCES = (
    Source("cached, 2 views", "cached", "fp16", 2),
    Source(REFERENCE, "cached", "fp16", 4),
    Source("cached, 8 views", "cached", "fp16", 8),
    Source("cached, 4 views, q8", "cached", "q8", 4),
    Source("cached, 4 views, fp32", "cached", "none", 4),
    Source("stored triplane, new views", "rendered", "fp16", 4),
    Source("online", "online", "none", 4),
)


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    teachers: Teachers
    judges: Judges
    perceptual: Perceptual
    samples: list[SampleRef]  # as the dataset has them
    tested: list[SampleRef]
    truths: dict[str, Truth]
    distill: DistillSettings


def prepare(data: Path, iterations: int, triplane_iterations: int) -> Bench:
    """Load the networks and the dataset, and render the truth."""
    teacher, identity, lpips, clip = (zoo.load(name, "embedded") for name in ("teacher", "identity", "lpips", "clip"))
    samples = [s for s in read_samples(open_snapshot(data).folder, data) if s.style in STYLES]
    portraits = sorted({s.portrait_id for s in samples if s.split == "test"})[:TESTED]
    tested = [s for s in samples if s.portrait_id in portraits]
    distill = DistillSettings(
        lr=0.004,
        lr_transformer=0.003,
        changed_weight=8.0,
        iterations=iterations,
        triplane_iterations=triplane_iterations,
        grid_every=iterations,
    )
    truths: dict[str, Truth] = {}
    for portrait in portraits:
        mine = [s for s in tested if s.portrait_id == portrait]
        heads = true_heads(mine[0].portrait_seed or 0, cameras(mine[0]).numpy(), SIZE, [s.style for s in mine])
        truths |= {s.key: heads[s.style] for s in mine}
    teachers, judges = Teachers(teacher, identity, lpips), Judges(identity, clip, lpips)
    return Bench(teachers, judges, lpips, samples, tested, truths, distill)


def cameras(sample: SampleRef) -> torch.Tensor:
    """(3, 25): the portrait's own, and one to each side."""
    return torch.cat([torch.from_numpy(portrait_camera(sample))[None], orbit_label(torch.tensor([-YAW, YAW]), 0.0)])


def teach_all(bench: Bench, root: Path) -> dict[tuple[str, int], list[SampleRef]]:
    """The training samples, taught again, by codec of the triplane and number of views."""
    forms = sorted({(source.triplane, source.views) for source in SOURCES})
    learned = [sample for sample in bench.samples if sample.split == "train"]
    folders = {form: root / "samples" / f"{form[0]}-{form[1]}" for form in forms}
    if not all((folder / "done").exists() for folder in folders.values()):
        shutil.rmtree(root / "samples", ignore_errors=True)
        made: dict[tuple[str, int], list[Sample]] = {form: [] for form in forms}
        for sample in learned:
            fields, labels = read_fields(sample), draw_view_cameras(sample.portrait_id, TeachSettings(views=MOST_VIEWS))
            lesson = teach_sample(bench.teachers, fields.pseudo_label, sample.camera, labels)
            pictures = {
                "portrait.png": encode_png(fields.portrait),
                "pseudo_label.png": encode_png(fields.pseudo_label),
            }
            for form in forms:
                made[form].append(Sample(sample.key, pictures | encode_form(lesson, *form)))
        for form, folder in folders.items():
            folder.mkdir(parents=True)
            write_shard(folder / "shard.tar", made[form])
            (folder / "done").touch()
    found: dict[tuple[str, int], list[SampleRef]] = {}
    for form, folder in folders.items():
        entries = read_index(folder / "shard.tar")
        found[form] = [replace(each, shard=folder / "shard.tar", entry=entries[each.key]) for each in learned]
    return found


def encode_form(lesson: Lesson, triplane: str, views: int) -> dict[str, bytes]:
    """The fields of a lesson with its first views alone."""
    part = replace(
        lesson, views=lesson.views[:views], view_cameras=lesson.view_cameras[:views], depths=lesson.depths[: views + 1]
    )
    return encode_lesson(part, TeachSettings.model_validate({"views": views, "triplane": triplane}))


def learn(bench: Bench, prompts: Prompts, learned: Sequence[SampleRef], source: Source, seed: int, root: Path) -> Row:
    """Train one student and measure it. The steps before views are compared are taken once for equal triplanes."""
    first = root / "first" / f"{source.triplane}-{seed}"
    start = bench.distill.triplane_iterations
    if not any(first.glob("checkpoint-*.pt")):
        first.mkdir(parents=True, exist_ok=True)
        trainer = make_trainer(bench, prompts, learned, "cached", seed)
        take_steps(trainer, start)
        Checkpoints(first, {"trainer": trainer}).save(start)
    trainer = make_trainer(bench, prompts, learned, source.teacher, seed)
    Checkpoints(first, {"trainer": trainer}).resume()
    seconds = take_steps(trainer, bench.distill.iterations)
    trainer.student.eval()
    rows = [examine(bench, trainer, sample) for sample in bench.tested]
    return {"source": source.name, "seed": seed, "cpu_s_per_step": float(np.median(seconds)), "samples": rows}


def make_trainer(bench: Bench, prompts: Prompts, learned: Sequence[SampleRef], teacher: str, seed: int) -> Trainer:
    """A trainer with a student that has learned nothing yet."""
    settings = bench.distill.model_copy(update={"teacher": teacher, "seed": seed})
    student = make_student(bench.teachers.teacher, prompts, Settings(distill=settings))
    maker = BatchMaker(student, bench.teachers.teacher, prompts, settings)
    return Trainer(maker, bench.perceptual, learned, settings, course_of(settings), Accelerator(cpu=True))


def take_steps(trainer: Trainer, until: int) -> list[float]:
    """Seconds of CPU of each step."""
    seconds = []
    trainer.student.train()
    while trainer.taken < until:
        began = time.process_time()
        trainer.step(with_views=trainer.taken >= trainer.settings.triplane_iterations)
        trainer.schedule.step()
        seconds.append(time.process_time() - began)
    trainer.maker.loader.close()
    return seconds


@torch.no_grad()
def examine(bench: Bench, trainer: Trainer, sample: SampleRef) -> Row:
    """The student against the true styled head."""
    fields, student = read_fields(sample), trainer.student
    tokens = trainer.maker.prompts.text[sample.prompt][None]
    views = render_views(student, student.encode(signed(fields.portrait[None]), tokens, "text"), cameras(sample))
    found = measure(
        bench.judges, views, fields.portrait, sample.prompt, fields.pseudo_label, bench.truths.get(sample.key)
    )
    return {"key": sample.key, "style": sample.style, "portrait": sample.portrait_id, **found}


def summarise(runs: list[Row]) -> list[Row]:
    """One row a source: means over seeds and samples, their spread over seeds, and the difference to `REFERENCE`."""
    table = []
    for source in dict.fromkeys(run["source"] for run in runs):
        mine = [run for run in runs if run["source"] == source]
        row: Row = {"source": source, "seeds": len(mine)}
        row["cpu_s_per_step"] = float(np.median([run["cpu_s_per_step"] for run in mine]))
        for name in MEASURES:
            by_seed = [float(np.mean([r[name] for r in run["samples"] if r[name] is not None])) for run in mine]
            row[name] = float(np.mean(by_seed))
            row[f"{name}_seeds"] = [min(by_seed), max(by_seed)]
            if source != REFERENCE:
                row[f"{name}_difference"] = difference(runs, source, name)
        table.append(row)
    return table


def difference(runs: list[Row], source: str, name: str) -> list[float]:
    """Mean of source minus `REFERENCE`, and its 95 % interval, over portraits drawn anew."""
    by_portrait: dict[str, list[float]] = {}
    for seed in {run["seed"] for run in runs}:
        pair = [next((r for r in runs if (r["source"], r["seed"]) == (s, seed)), None) for s in (source, REFERENCE)]
        if pair[0] is None or pair[1] is None:
            continue
        for ours, theirs in zip(pair[0]["samples"], pair[1]["samples"], strict=True):
            if ours[name] is not None:
                by_portrait.setdefault(ours["portrait"], []).append(ours[name] - theirs[name])
    means = np.array([np.mean(values) for values in by_portrait.values()])
    drawn = np.random.default_rng(0).integers(len(means), size=(DRAWS, len(means)))
    low, high = np.quantile(means[drawn].mean(axis=1), [0.025, 0.975])
    return [float(means.mean()), float(low), float(high)]


def show(table: list[Row]) -> None:
    """The table on the screen, as it goes into the documentation."""
    shown = Table("source", "CPU s/step", "L1 inside the edit", "difference", "PSNR dB", "LPIPS", "CLIP")
    for row in table:
        gap = row.get("l1_changed_difference")
        said = f"{gap[0]:+.4f} [{gap[1]:+.4f}, {gap[2]:+.4f}]" if gap else "-"
        values = (f"{row[name]:.4f}" if name == "l1_changed" else f"{row[name]:.3f}" for name in MEASURES)
        first, *others = values
        shown.add_row(row["source"], f"{row['cpu_s_per_step']:.2f}", first, said, *others)
    Console(width=130).print(shown)


def draw(table: list[Row], path: Path) -> None:
    """Cost against error, with the 95 % interval of the difference to the reference."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), constrained_layout=True)
    for row in table:
        gap = row.get("l1_changed_difference", [0.0, 0.0, 0.0])
        spread = [[gap[0] - gap[1]], [gap[2] - gap[0]]]
        axes.errorbar(row["cpu_s_per_step"], row["l1_changed"], yerr=spread, fmt="o", capsize=3)
        axes.annotate(row["source"], (row["cpu_s_per_step"], row["l1_changed"]), (6, 4), textcoords="offset points")
    axes.margins(x=0.25)
    axes.set_xlabel("CPU seconds per step that compares views (one thread)")
    axes.set_ylabel("L1 to the true edit, inside it (lower is better)")
    axes.set_title(f"Sources of a student's targets; bars: 95 % of the difference to '{REFERENCE}'", fontsize=10)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=260)
    parser.add_argument("--triplane-iterations", type=int, default=200)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs_folder = options.root / "runs"
    runs_folder.mkdir(parents=True, exist_ok=True)
    pending = [
        (source, seed) for seed in SEEDS for source in SOURCES if not run_file(runs_folder, source, seed).exists()
    ]
    if pending:
        bench = prepare(options.data, options.iterations, options.triplane_iterations)
        clip, mae = zoo.load("clip", "embedded"), zoo.load("mae", "embedded")
        taught, prompts = teach_all(bench, options.root), Prompts.read(bench.samples, clip, mae)
        for source, seed in pending:
            began = time.perf_counter()
            run = learn(bench, prompts, taught[source.triplane, source.views], source, seed, options.root)
            run_file(runs_folder, source, seed).write_text(json.dumps(run))
            print(f"{source.name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    runs = [json.loads(run_file(runs_folder, source, seed).read_text()) for source in SOURCES for seed in SEEDS]
    table = summarise(runs)
    show(table)
    if options.figure:
        draw(table, options.figure)
    if options.out:
        told = {"iterations": options.iterations, "triplane_iterations": options.triplane_iterations}
        options.out.write_text(json.dumps(told | {"styles": STYLES, "seeds": SEEDS, "table": table}, indent=1) + "\n")


def run_file(folder: Path, source: Source, seed: int) -> Path:
    """Where a run's result is kept."""
    return folder / f"{source.name.replace(', ', '-').replace(' ', '-')}-{seed}.json"


if __name__ == "__main__":
    main()
