"""Stage evaluate: the student beside its teachers on held-out portraits and prompts (3DPE, Table 1).

All methods are seen from the same cameras: the portrait's own (the true one where it is known), and novel ones
around the front. `seconds_per_image` is measured in this run; nothing depends on this stage, so its bytes may differ
each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.config.settings import EvaluateSettings, Settings
from data_catalog.samples.encoding import encode_json
from data_catalog.samples.seeds import derive
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks.evaluation.table import headline, make_table
from tasks.progress import report
from tasks.training.data import SampleRef, check_no_leakage, group_samples, read_samples
from tasks.training.student_files import load_student

if TYPE_CHECKING:
    from tasks.evaluation.methods import Models

TABLE, PER_SAMPLE, FIGURE = "table.json", "per_sample.parquet", "evaluation.png"


def run(work: Work) -> Summary:
    """Load the networks and evaluate."""
    return evaluate(work, load_models(work.input("distill").folder, work.settings))


def evaluate(work: Work, models: Models) -> Summary:
    """Measure, time, draw; write the table."""
    from tasks.evaluation.figure import draw_figure
    from tasks.evaluation.methods import Evaluation
    from tasks.evaluation.pictures import draw_style
    from tasks.evaluation.stopwatch import time_all

    samples = read_samples(work.input("dataset").folder, work.root)
    check_no_leakage(samples)
    tested = choose_tested(samples, work.settings.evaluate)
    references, poses = choose_references(samples), training_poses(samples)
    evaluation = Evaluation(models, work.settings, references, seen_prompts(samples), poses)
    most = work.settings.evaluate.pictures_per_style
    pictured = {style: mine[:most] for style, mine in group_samples(tested, "style").items()}
    evaluation.keep_views(pictured)
    turns, measured = work.settings.evaluate.timing_repeats + 1, len(tested)
    rows = evaluation.measure_all(tested, more=turns)
    timing = time_all(models, tested[0], work.settings, lambda turn: report(measured + turn, measured + turns))
    table = make_table(rows, timing, work.settings)
    table["pictures"] = {style: draw_style(evaluation, style, mine, work.folder) for style, mine in pictured.items()}
    draw_figure(table, work.folder / FIGURE)
    (work.folder / TABLE).write_bytes(encode_json(table))
    pq.write_table(pa.Table.from_pylist(rows), work.folder / PER_SAMPLE)
    return Summary(samples=len(tested), metrics=headline(table))


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    chosen = settings.evaluate.model_dump(mode="json", exclude={"batch_size"})
    return chosen | {"world": settings.world, "edit": settings.edit.model_dump(mode="json", exclude={"batch_size"})}


STAGE = Stage(
    name="evaluate",
    version=5,
    needs=(Need("dataset"), Need("distill")),
    reads=reads,
    models=lambda settings: ("editor", "teacher", "clip", "mae", "identity", "landmarks", "lpips"),
    run=run,
)


def load_models(folder: Path, settings: Settings) -> Models:
    """The student in `folder` and everything it is measured with."""
    from models.three_d.inference import for_use
    from models.zoo import zoo
    from tasks.evaluation.methods import Models
    from tasks.evaluation.metrics import Judges

    world, device = settings.world, settings.run.device
    student = for_use(load_student(folder, device))
    unused = {"mae"} if "image" in student.config.own_encoders else set()  # its own reads the pictures
    loaded = {name: zoo.load(name, world, device) for name in STAGE.models(settings) if name not in unused}
    judges = Judges(zoo.load_recogniser(world, device), loaded["clip"], loaded["lpips"])
    return Models(student, loaded["teacher"], loaded["editor"], loaded["clip"], loaded.get("mae"), judges)


def choose_tested(samples: Sequence[SampleRef], own: EvaluateSettings) -> list[SampleRef]:
    """The test split: of each style at most `max_samples_per_style` (the first ones by key), of all at most `samples`.

    The latter are drawn from the styles in turn, so that each has as many, of portraits that the seed chooses.
    """
    tested = [sample for sample in samples if sample.split == "test"]
    if not tested:
        raise UserError(
            "the dataset has no test samples, so there is nothing to evaluate on",
            hint="raise portraits.test_fraction or portraits.count, then stillroom build",
        )
    by_style = {style: mine[: own.max_samples_per_style] for style, mine in group_samples(tested, "style").items()}
    if own.samples is not None and own.samples < sum(len(mine) for mine in by_style.values()):

        def lot(sample: SampleRef) -> int:
            return derive("evaluate", own.seed, sample.key)

        turns = zip_longest(*(sorted(mine, key=lot) for mine in by_style.values()))
        drawn = [sample for turn in turns for sample in turn if sample is not None][: own.samples]
        by_style = group_samples(sorted(drawn, key=lambda sample: sample.key), "style")
    return [sample for style in sorted(by_style) for sample in by_style[style]]


def training_poses(samples: Sequence[SampleRef]) -> np.ndarray:
    """(N, 25) float32: the camera of each training portrait, by its id; the distribution of poses that was learned.

    A dataset without training portraits, made for an evaluation, has those of all.
    """
    learned = [sample for sample in samples if sample.split == "train"]
    cameras = {sample.portrait_id: sample.camera for sample in learned or samples}
    return np.stack([cameras[portrait] for portrait in sorted(cameras)])


def seen_prompts(samples: Sequence[SampleRef]) -> dict[str, list[str]]:
    """Return the training prompts by style."""
    learned: dict[str, set[str]] = {}
    for sample in samples:
        if sample.split == "train":
            learned.setdefault(sample.style, set()).add(sample.prompt)
    return {style: sorted(prompts) for style, prompts in learned.items()}


def choose_references(samples: Sequence[SampleRef]) -> dict[str, SampleRef]:
    """Choose the image prompt of each test sample, by key: the next test sample of its style that shows another person.

    No picture of them was seen in training. A sample without such a mate has none.
    """
    chosen: dict[str, SampleRef] = {}
    tested = [sample for sample in samples if sample.split == "test"]
    for mine in group_samples(tested, "style").values():
        for place, sample in enumerate(mine):
            after = [*mine[place + 1 :], *mine[:place]]
            mate = next((each for each in after if each.person != sample.person), None)
            if mate is not None:
                chosen[sample.key] = mate
    return chosen
