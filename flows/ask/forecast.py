"""Forecast of a stage of the paper's size before any run: counted operations over a GPU's usual speed.

The speeds are sustained ones of an A100:
InstructPix2Pix's authors report 9 s for 100 steps in half precision, 27 TFLOP/s, before fused attention;
convolutions in TF32 with small batches, as in teacher and student, sustain about as much of a smaller peak. As soon as
a stage has records on the present kind of device, these replace the forecast.
"""

import math
from dataclasses import dataclass

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from flows.ask.work import SHAPES, edited, measured, stored, taught, trained

CLIP_IMAGE = 0.16  # TFLOP of a picture
EDITOR_TFLOPS, OTHER_TFLOPS = 40.0, 20.0  # sustained
CODING_S = 0.15  # seconds for PNG, JPEG and quantisation of a taught sample on one core
PNG_BYTES = SHAPES["paper"].png
STUDENT_BYTES, ENCODERS_BYTES = 0.35e9, 0.84e9  # without E_p's own encoders, and these
SPEED = f"{EDITOR_TFLOPS:.0f} TFLOP/s in the editor, {OTHER_TFLOPS:.0f} elsewhere, about an A100's"


@dataclass(frozen=True)
class Forecast:
    """Cost of one sample of a stage, or of a whole stage with one partition."""

    seconds: float
    bytes: float


def forecast(stage: str, settings: Settings, tested: int) -> Forecast | None:
    """Return the cost of a stage of the world `paper` on one GPU.  tested: samples that are evaluated."""
    if settings.world != "paper":
        return None
    edit_s = edited(settings.edit.model_dump()) / EDITOR_TFLOPS
    teach_s = taught(settings.teach.model_dump()) / OTHER_TFLOPS
    learns_to_read = settings.distill.prompt_encoder == "learn"
    by_stage = {
        "portraits": Forecast(0.1, PNG_BYTES),
        "align": Forecast(0.1, PNG_BYTES),
        "prompts": Forecast(1.5, 1e3),
        "edit": Forecast(edit_s if settings.edit.source == "editor" else CODING_S, PNG_BYTES),
        "score": Forecast(4 * CLIP_IMAGE / OTHER_TFLOPS + 0.05, 200.0),
        "select": Forecast(0.001, 100.0),
        "teach": Forecast(teach_s + CODING_S, taught_bytes(settings)),
        "dataset": Forecast(60.0, 20e6),
        "distill": Forecast(training_seconds(settings), STUDENT_BYTES + ENCODERS_BYTES * learns_to_read),
        "evaluate": Forecast(evaluation_seconds(settings, tested), 50e6),
    }
    return by_stage.get(stage)


def with_count(settings: Settings) -> Settings:
    """Return the settings with the number of portraits that there are; as they are where the source is missing."""
    from tasks.portraits import count_portraits

    try:
        count = count_portraits(settings)
    except UserError:
        return settings
    return settings.model_copy(update={"portraits": settings.portraits.model_copy(update={"count": count})})


def count_tested(settings: Settings, portraits: float, styles: int) -> int:
    """Return the samples that an evaluation measures."""
    own, tested = settings.evaluate, portraits * settings.portraits.test_fraction
    every = round(styles * min(tested, own.max_samples_per_style or tested))
    return min(every, own.samples or every)


def evaluation_seconds(settings: Settings, tested: int) -> float:
    """Return the seconds of measuring so many samples by five methods, and of timing the editor."""
    own, edit = settings.evaluate, settings.edit
    each = measured(own.model_dump()) / OTHER_TFLOPS + 0.1
    timed = [edited(edit.model_dump() | {"steps": steps})
             for steps in {edit.steps, own.timed_editor_steps or edit.steps}]  # fmt: skip
    return tested * each + (1 + own.timing_repeats) * sum(timed) / EDITOR_TFLOPS


def taught_bytes(settings: Settings) -> float:
    """Return the bytes of one sample in a shard."""
    return stored(settings.teach.model_dump(), SHAPES[settings.world])


def training_seconds(settings: Settings) -> float:
    """Return the seconds on one GPU; several GPUs share them."""
    return trained(settings.distill.model_dump()) / OTHER_TFLOPS


def keep_note(settings: Settings) -> str | None:
    """Tell the yield at which the portraits give `select.keep`, and how many it takes at half of that; None without."""
    own, keep = with_count(settings).portraits, settings.select.keep
    if keep is None or own.count is None:
        return None
    learned = 1.0 - own.val_fraction - own.test_fraction
    each = learned * settings.edit.prompts_per_portrait  # training samples of one attempt per portrait
    needed, attempts = keep / (own.count * each), settings.select.attempts
    once = (
        f"one attempt at {own.count} portraits gives them from a yield of {needed:.0%}"
        if needed <= 1
        else (f"one attempt at {own.count} portraits gives {own.count * each:.0f} at most")
    )
    return (
        f"select.keep={keep} training samples a style: {once}, {attempts} attempts from {needed / attempts:.0%}; "
        f"at a yield of 50% one attempt takes portraits.count={math.ceil(keep / (0.5 * each))}"
    )
