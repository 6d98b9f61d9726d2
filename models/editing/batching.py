"""How many samples a device takes at once: as many as its free memory holds, and half where that was too many."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from accelerate.utils import find_executable_batch_size

MOST = 64  # samples at once; from there on a GPU gains nothing
USED = 0.9  # of the free memory; the rest is for what lies in pieces
Made = TypeVar("Made")


class Memory(Protocol):
    """The memory of a device."""

    def free(self) -> int:
        """Bytes that may be taken now."""

    def watch(self, work: Callable[[], Made]) -> tuple[Made, int]:
        """What the work makes, and the bytes that it took at its peak beyond what was taken before."""


class CudaMemory:
    """Of one GPU. What torch holds and nobody uses counts as free; what other processes hold does not."""

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
    """How many samples fit, at least one and at most `MOST`."""
    return max(1, min(MOST, int(USED * free_bytes) // max(1, sample_bytes)))


class Batches:
    """Work on samples, `size` at once. The size is halved when memory runs out, and stays so."""

    def __init__(self, size: int) -> None:
        self.size = size

    def map(self, work: Callable[[slice], Made], start: int, stop: int) -> list[Made]:
        """What the work makes of each batch from `start` to `stop`, in order; what was made is not made again.

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
