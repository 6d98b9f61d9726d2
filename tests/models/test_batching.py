"""Samples at once: as many as the memory holds, half where that was too many, and the same pictures either way."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch

from models.editing.batching import MOST, Batches, Made, fitting
from models.editing.editor import Editor
from tasks.edit import is_out_of_memory
from tests.models.test_editor import PROMPTS, calls
from tests.worlds.tiny import noise_picture, tiny_clip, tiny_editor

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."  # as torch says it
SEEDS = [11, 12, 13, 14, 15, 16, 17]
GIB = 2**30


class Figures:
    """A device whose memory is what a test says."""

    def __init__(self, free: int, used: int) -> None:
        self._free, self._used, self.watched = free, used, 0

    def free(self) -> int:
        return self._free

    def watch(self, work: Callable[[], Made]) -> tuple[Made, int]:
        self.watched += 1
        return work(), self._used


class Device:
    """Notes the batches that it is given, and has room for `room` samples."""

    def __init__(self, room: int) -> None:
        self.room, self.tried = room, list[int]()

    def work(self, batch: slice) -> list[int]:
        self.tried.append(batch.stop - batch.start)
        if self.tried[-1] > self.room:
            raise torch.OutOfMemoryError(FULL)
        return list(range(batch.start, batch.stop))


@pytest.fixture
def editor() -> Editor:
    return tiny_editor(tiny_clip())


def edit(editor: Editor, batch_size: int | Literal["auto"], count: int = 7) -> np.ndarray:
    portraits = np.stack([noise_picture(i) for i in range(count)])
    prompts = [PROMPTS[i % 2] for i in range(count)]
    return editor.edit(portraits, prompts, SEEDS[:count], 2, 3.0, 1.4, batch_size=batch_size)


def seen(editor: Editor) -> list[int]:
    """Grows by the samples of each batch."""
    return calls(editor.pipeline.vae.decoder, lambda inputs: len(inputs[0]))


@pytest.mark.parametrize(
    ("free", "used", "size"),
    [(100 * GIB, 5 * GIB, 18), (GIB, 5 * GIB, 1), (100 * GIB, GIB // 100, MOST), (GIB, 0, MOST)],
)
def test_as_many_fit_as_the_free_memory_holds_with_a_tenth_to_spare(free: int, used: int, size: int) -> None:
    assert fitting(free, used) == size


def test_a_batch_that_is_too_large_is_halved_and_nothing_is_made_twice() -> None:
    device, batches = Device(room=5), Batches(16)
    made = batches.map(device.work, 0, 11)
    assert [sample for batch in made for sample in batch] == list(range(11))
    assert device.tried == [11, 8, 4, 4, 3]
    device.tried.clear()
    batches.map(device.work, 0, 4)
    assert device.tried == [4]  # it stays at what it found


def test_memory_that_runs_out_later_costs_only_what_was_not_made() -> None:
    device, batches = Device(room=4), Batches(4)

    def shrinking(batch: slice) -> list[int]:
        device.room = 4 if batch.start < 4 else 2
        return device.work(batch)

    assert [sample for batch in batches.map(shrinking, 0, 8) for sample in batch] == list(range(8))
    assert device.tried == [4, 4, 2, 2]


def test_no_room_for_one_sample_is_the_devices_error_and_no_fault_of_a_sample() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate") as caught:
        Batches(4).map(Device(room=0).work, 0, 4)
    assert is_out_of_memory(caught.value)


def test_another_error_is_not_retried() -> None:
    def fail(batch: slice) -> None:
        device.tried.append(batch.stop)
        raise ValueError("a bad sample")

    device = Device(room=4)
    with pytest.raises(ValueError, match="a bad sample"):
        Batches(4).map(fail, 0, 4)
    assert device.tried == [4]


def test_the_first_sample_of_a_size_is_measured_and_the_others_go_by_it(editor: Editor) -> None:
    memory = editor.memory = Figures(free=100, used=30)
    batches = seen(editor)
    edit(editor, "auto")
    assert (batches, memory.watched) == ([1, 3, 3], 1)
    batches.clear()
    edit(editor, "auto")
    assert (batches, memory.watched) == ([3, 3, 1], 1)  # known by now


def test_a_given_size_is_kept_to_and_without_a_gpu_samples_are_made_one_by_one(editor: Editor) -> None:
    batches = seen(editor)
    edit(editor, "auto", 3)
    assert batches == [1, 1, 1]
    editor.memory = Figures(free=0, used=0)
    for size, expected in ((2, [2, 1]), (None, [3])):
        batches.clear()
        edit(editor, size, 3)
        assert batches == expected


def test_the_pictures_do_not_depend_on_how_many_are_made_at_once(editor: Editor) -> None:
    alone = edit(editor, None)
    assert len({picture.tobytes() for picture in alone}) == len(alone)
    for free in (60, 100, 1000):
        editor.memory = Figures(free=free, used=30)
        editor._batches.clear()
        # Convolutions of other batch sizes add in another order: a level of rounding, here and there.
        assert np.abs(edit(editor, "auto").astype(int) - alone).max() <= 1


def test_an_editor_that_runs_out_of_memory_goes_on_with_half_and_the_same_pictures(editor: Editor) -> None:
    alone, batches = edit(editor, None), list[int]()

    def refuse(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        batches.append(len(inputs[0]))
        if len(inputs[0]) > 3 * 2:  # three branches of guidance
            raise torch.OutOfMemoryError(FULL)

    editor.unet.register_forward_pre_hook(refuse)
    editor.memory = Figures(free=1000, used=30)
    assert np.abs(edit(editor, "auto").astype(int) - alone).max() <= 1
    assert max(batches) == 3 * 6  # all that were left, at first
    assert batches[-1] <= 3 * 2
