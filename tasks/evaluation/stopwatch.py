"""Seconds per image of each method, side by side: one picture at a time, warm, on one thread, in turns.

As in the paper, a time is the mean of its repetitions, and that of the student includes the encoding of its prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean

import torch

from data_catalog.config.settings import Settings
from models.pixels import signed
from tasks.evaluation.methods import Models
from tasks.evaluation.scene import portrait_camera
from tasks.evaluation.table import NO_EDIT, STUDENT, TEACHERS, TEACHERS_AS_EDITED
from tasks.training.data import SampleRef, read_fields
from tasks.training.reading import text_tokens

OnTurn = Callable[[int], None]


def time_all(
    models: Models, sample: SampleRef, settings: Settings, on_turn: OnTurn = lambda turn: None
) -> dict[str, float]:
    """Seconds for one picture: from the portrait to one view of the edited head.

    The student encodes its prompt each time; `prompt` is what that takes. The teachers are timed at
    `evaluate.timed_editor_steps`, and at the dataset's own as well if those are others.
    """
    device, edit = settings.run.device, settings.edit
    portrait = read_fields(sample).portrait[None]
    image, camera = signed(portrait, device), torch.from_numpy(portrait_camera(sample))[None].to(device)
    student, teacher = models.student, models.teacher
    timed_steps = settings.evaluate.timed_editor_steps or edit.steps

    def encode() -> torch.Tensor:
        return student.encode(image, text_tokens(student, models.clip, [sample.prompt]).to(device), "text")

    with torch.no_grad():
        triplane = encode()

    def teachers(steps: int) -> object:
        scales = (edit.guidance_scale, edit.image_guidance_scale)
        asked = (portrait, [sample.prompt], [sample.seed], steps)
        edited = models.editor.edit(*asked, *scales, scheduler=edit.scheduler)
        return teacher.render(teacher.encode(signed(edited, device)), camera)

    methods = {
        STUDENT: lambda: student.render(encode(), camera),
        TEACHERS: lambda: teachers(timed_steps),
        NO_EDIT: lambda: teacher.render(teacher.encode(image), camera),
        "student render": lambda: student.render(triplane, camera),
        "prompt": lambda: text_tokens(models.student, models.clip, [sample.prompt]),
    }
    if timed_steps != edit.steps:
        methods[TEACHERS_AS_EDITED] = lambda: teachers(edit.steps)
    return time_methods(methods, settings.evaluate.timing_repeats, device, on_turn)


def time_methods(
    methods: Mapping[str, Callable[[], object]], repeats: int, device: str, on_turn: OnTurn = lambda turn: None
) -> dict[str, float]:
    """Return the mean seconds of each. The methods take turns, so that a busy machine slows all of them.

    The first turn warms up and is not counted, unless repeats is 0 and it is the only one.

    One thread: the gain of more threads differs between machines and is small for one small picture. A GPU is not
    affected.
    """
    with one_thread():
        return _take_turns(methods, repeats, device, on_turn)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one thread; only then do CPU seconds equal seconds of the clock."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _take_turns(
    methods: Mapping[str, Callable[[], object]], repeats: int, device: str, on_turn: OnTurn
) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    with torch.no_grad():
        for turn in range(repeats + 1):
            for name, method in methods.items():
                spent = _time_one(method, device)
                if turn > 0 or repeats == 0:
                    seconds[name].append(spent)
            on_turn(turn + 1)
    return {name: fmean(values) for name, values in seconds.items()}


def _time_one(method: Callable[[], object], device: str) -> float:
    clock = device_clock(device)
    started = clock()
    method()
    return clock() - started


def device_clock(device: str) -> Callable[[], float]:
    """Return the clock of the wall, in seconds, for work on a device."""

    def read() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)  # CUDA is asynchronous: synchronise before reading the clock.
        return time.perf_counter()

    return read
