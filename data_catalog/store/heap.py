"""How this process's memory comes and goes while networks compute on a CPU.

glibc takes every large block from the kernel and gives it back at once, and the kernel fills each with zeros anew: of
a build of small pictures, and of the tensors of one of 512x512, that is a fifth to a quarter of all the CPU time.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Of <malloc.h>: what is set, what is set meanwhile, what glibc starts with.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
MEANWHILE = {MMAP_MAX: 0, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 1 << 26}
DEFAULTS = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 * 1024, TOP_PAD: 0}

_keeping = 0  # how many ask for it: work inside of work, or on another thread
_lock = threading.Lock()


@contextmanager
def kept_memory() -> Iterator[None]:
    """Blocks that are freed are used again, until the last who asked for it is done; nothing changes but on glibc."""
    _count(+1)
    try:
        yield
    finally:
        _count(-1)


def give_back() -> None:
    """Give what is free to the kernel, where glibc holds it."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _count(change: int) -> None:
    global _keeping
    with _lock:
        before, _keeping = _keeping, _keeping + change
        if not before:
            _tell(MEANWHILE)
        elif not _keeping:
            _tell(DEFAULTS)
            give_back()


def _tell(values: dict[int, int]) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for name, value in values.items():
            libc.mallopt(name, value)
