"""Adaptation of a student: the plan for one style, and the results of a run."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.names import check_slug
from data_catalog.config.plain_text import bad_character
from data_catalog.config.settings import Settings
from data_catalog.config.styles import style_paths, styles_folder
from data_catalog.store.stage import Stage
from flows.ask.plan import PlanShape
from flows.run.products import log_pictures
from flows.run.run import FlowRun


def adapt_settings(overrides: Sequence[str], pairs: str | None, prompt: str | None) -> list[str]:
    """Return the overrides, with the user's own pairs added."""
    if prompt is not None:
        prompt = " ".join(prompt.split())
        if not prompt:
            raise UserError("the prompt is empty", expected="the edit of the pairs, such as 'make the hair red'")
        if bad_character(prompt):
            raise UserError("the prompt is not plain text", found=bad_character(prompt), expected="one line of text")
    given = {"adapt.pairs_folder": pairs and str(Path(pairs).absolute()), "adapt.prompt": prompt}
    return [*overrides, *(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in given.items() if value)]


def adapt_shape(
    style: str, learner: Stage | None = None, base: Stage | None = None, pairs: int | None = None
) -> Callable[[Settings], PlanShape]:
    """Return a plan of one style: from its portraits, or a folder, to its delta.

    learner, base: the stages in the places of `adapt` and `distill`.  pairs: number to choose from; null for as
    many as are learned.
    """
    from tasks import distill
    from tasks.adaptation import adapt

    check_slug(style)
    ends = (base or distill.STAGE, learner or adapt.STAGE)

    def shape(settings: Settings) -> PlanShape:
        from tasks import dataset
        from tasks.adaptation import folder as adapt_folder
        from tasks.adaptation import pairs as adapt_pairs
        from tasks.portraits import blocks
        from tasks.stages import STAGES

        if settings.adapt.pairs_folder is not None:
            return PlanShape((dataset.STAGE, ends[0], adapt_folder.STAGE, ends[1]), [style], [])
        names = [*style_paths(styles_folder(settings))]
        if style not in names:
            hint = f"stillroom adapt {style} --pairs FOLDER --prompt TEXT    (a style of your own)"
            raise UserError(f"there is no style file '{style}'", styles=", ".join(names), hint=hint)
        made = tuple(stage for stage in STAGES if stage.name in dataset.MADE_FROM)
        stages = (*made, dataset.STAGE, ends[0], adapt_pairs.STAGE, ends[1])
        wanted = adapt_pairs.count_portraits(settings, pairs or settings.adapt.pairs)
        enough = math.ceil(wanted / settings.portraits.block_size)
        return PlanShape(stages, [style], blocks(settings)[:enough])

    return shape


def make_samples(run: FlowRun) -> None:
    """Run the stages of `build` up to the teacher; partitions that a build made are reused."""
    for stage in ("portraits", "align", "prompts", "edit", "score", "select"):
        run.stage(stage)
    run.top_up("edit", "score", "select")
    run.stage("teach")


def publish_adapted(run: FlowRun) -> dict[str, Any]:
    """Log the adapted style in MLflow; returns the values that the command prints."""
    from data_catalog.products.students import ADAPTED

    run.check()
    folder, entry = run.folder("adapt"), run.entry("adapt")
    document = json.loads((folder / ADAPTED).read_text(encoding="utf-8"))
    metrics = run.plan.catalog.read(entry).metrics
    run.tracker.tag("student.digest", document["student"])
    run.tracker.tag("adapted.style", document["style"])
    run.tracker.table(document["curve"], "curve.json", "seconds")
    run.tracker.result(metrics)
    log_pictures(run, folder)
    return {
        "style": document["style"],
        "student": entry.digest,
        "base": document["student"],
        "pairs": len(document["pairs"]),
        "curve": document["curve"],
        "lpips_to": document["lpips_to"],
        "old_styles": document["old_styles"],
        "metrics": metrics,
        "delta_bytes": entry.bytes,
        "files": [str(path) for path in sorted(folder.iterdir())],
    }
