"""Batch size for a device: as many samples as its free memory holds, halved when memory runs out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from accelerate.utils import find_executable_batch_size

MOST = 64  # upper limit, samples; a GPU gains nothing beyond it
USED = 0.9  # share of the free memory that may be used; the rest covers fragmentation
Made = TypeVar("Made")


class Memory(Protocol):
    """The memory of a device."""

    def free(self) -> int:
        """Bytes that may be taken now."""

    def watch(self, work: Callable[[], Made]) -> tuple[Made, int]:
        """Run the work. Return its result and its peak memory in bytes beyond the memory in use before."""


class CudaMemory:
    """Memory of one GPU. Memory that torch has reserved but not allocated counts as free; other processes' does not."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def free(self) -> int:
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(torch.cuda.mem_get_info(self.device)[0] + unused)

    def watch(self, work: Callable[[], Made]) -> tuple[Made, int]:
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        made = work()
        return made, int(torch.cuda.max_memory_allocated(self.device) - before)


def fitting(free_bytes: int, sample_bytes: int) -> int:
    """Return the number of samples that fit, between 1 and `MOST`."""
    return max(1, min(MOST, int(USED * free_bytes) // max(1, sample_bytes)))


class Batches:
    """Work on samples, `size` at once. The size is halved when memory runs out, and stays halved."""

    def __init__(self, size: int) -> None:
        self.size = size

    def map(self, work: Callable[[slice], Made], start: int, stop: int) -> list[Made]:
        """Return the results of the batches from `start` to `stop`, in order; finished batches are not repeated.

        Raises the device's own error where there is no room for a single sample.
        """
        made: list[Made] = []

        def go_on(size: int) -> None:
            nonlocal start
            while start < stop:
                batch = slice(start, min(start + size, stop))
                made.append(work(batch))
                start = batch.stop

        find_executable_batch_size(go_on, self.size, self._halve)()
        return made

    def _halve(self) -> int:
        if self.size == 1:
            error = sys.exception()  # that accelerate is handling; its own would not say what was missing
            assert error is not None
            raise error
        self.size //= 2
        return self.size
