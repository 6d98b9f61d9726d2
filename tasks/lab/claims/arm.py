"""Stages of the claims: one training each, measured while it learns and at its end.

Their students have names of their own, so that the newest student is never one without a loss. On a CPU they learn on
one thread, and their seconds are CPU time, not the wall clock: arms are compared by them while other work may run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_json
from data_catalog.store.stage import Need, Partition, Stage, Summary, Work
from tasks import evaluate
from tasks.distill import chosen_settings
from tasks.evaluation.table import STUDENT, TEACHERS
from tasks.lab.claims.exam import LIFTED, LIFTED_NO_HIGH, LIFTED_NO_LOW, NO_HIGH, NO_LOW, Bench
from tasks.training.student_files import save_student

ROWS, CURVE, TIMING = "rows.parquet", "curve.parquet", "timing.json"


@dataclass(frozen=True)
class Kind:
    """Work of a stage beyond training as in `distill`."""

    everything_learns: bool = False
    methods: tuple[str, ...] = (STUDENT,)
    timed: bool = False


FROZEN = Kind()
WHOLE = Kind(everything_learns=True)
BRANCHES = (NO_HIGH, NO_LOW, LIFTED, LIFTED_NO_HIGH, LIFTED_NO_LOW)  # methods of Figure 3
TABLE = Kind(methods=(STUDENT, TEACHERS, *BRANCHES), timed=True)


def run_frozen(work: Work) -> Summary:
    """E_p and E_t learn."""
    return run(work, FROZEN)


def run_whole(work: Work) -> Summary:
    """E_low and E_high learn, too."""
    return run(work, WHOLE)


def run_table(work: Work) -> Summary:
    """Train as `run_frozen`; measure the student beside its teachers, time it; use it and Live3D without a branch."""
    return run(work, TABLE)


def run(work: Work, kind: Kind) -> Summary:
    """Load the arms' shared parts, train, measure."""
    from tasks.evaluation.stopwatch import one_thread
    from tasks.lab.claims.exam import open_bench

    with one_thread():
        return learn_and_measure(work, kind, open_bench(work))


def learn_and_measure(work: Work, kind: Kind, bench: Bench) -> Summary:
    """Train and measure an arm, from the newest checkpoint in `work.working`."""
    from tasks.lab.claims.exam import Exam
    from tasks.lab.claims.training import learn
    from tasks.pictures.sheets import write_png

    student, curve = learn(work, bench, kind.everything_learns)
    exam = Exam(bench, student)
    for method in exam.methods_to_draw(kind.methods):
        write_png(work.folder / picture_name(method), exam.draw(method))
    if kind.timed:
        (work.folder / TIMING).write_bytes(encode_json(exam.time()))
    save_student(student, work.folder)
    pq.write_table(pa.Table.from_pylist(exam.take(kind.methods)), work.folder / ROWS)
    pq.write_table(pa.Table.from_pylist(curve), work.folder / CURVE)
    last = [row for row in curve if row["step"] == work.settings.distill.iterations]
    metrics = {"learning_seconds": last[0]["seconds"], "lpips": sum(row["lpips"] for row in last) / len(last)}
    return Summary(samples=len(bench.tested), metrics=metrics)


def reads(settings: Settings, partition: Partition) -> dict[str, Any]:
    """Return what the stages distill and evaluate read, and the styles: an arm may use some of a dataset's only."""
    measured = evaluate.reads(settings, partition)
    return {"distill": chosen_settings(settings), "evaluate": measured, "styles": settings.prompts.styles}


def picture_name(method: str) -> str:
    """The strip of a method in an arm's folder."""
    return method.replace("+", "-").replace(" ", "-") + ".png"


FROZEN_ARM = Stage(
    name="claim",
    version=2,
    needs=(Need("dataset"),),
    reads=reads,
    models=evaluate.STAGE.models,
    run=run_frozen,
    resumes=True,
)
WHOLE_ARM = replace(FROZEN_ARM, name="claimwhole", run=run_whole)
TABLE_ARM = replace(FROZEN_ARM, name="claimtable", run=run_table)
