"""Memory of a process while networks compute on a CPU.

glibc takes every large block from the kernel and returns it at once, and the kernel zeroes each new one. With the
tensors of small pictures this takes a fifth to a quarter of all the CPU time.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Constants of <malloc.h>: parameters, values while memory is kept, glibc's defaults.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
MEANWHILE = {MMAP_MAX: 0, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 1 << 26}
DEFAULTS = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 * 1024, TOP_PAD: 0}

_keeping = 0  # active callers: nested work, or another thread's
_lock = threading.Lock()


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory for reuse until the last caller leaves (glibc only)."""
    _count(+1)
    try:
        yield
    finally:
        _count(-1)


def give_back() -> None:
    """Return free memory to the kernel (glibc only)."""
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
