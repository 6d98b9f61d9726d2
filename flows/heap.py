"""How this process's memory comes and goes while networks at full size compute on a CPU.

glibc takes every large block from the kernel and gives it back at once, and the kernel fills each with zeros anew. For
the tensors of a picture of 512x512 that is more than a fifth of all the CPU time.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of <malloc.h>: what is set, what is set meanwhile, what glibc starts with.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
MEANWHILE = {MMAP_MAX: 0, TRIM_THRESHOLD: (1 << 31) - 1, TOP_PAD: 1 << 26}
DEFAULTS = {MMAP_MAX: 65536, TRIM_THRESHOLD: 128 * 1024, TOP_PAD: 0}


@contextmanager
def kept_memory() -> Iterator[None]:
    """Blocks that are freed are used again; elsewhere than on glibc, nothing changes."""
    _tell(MEANWHILE)
    try:
        yield
    finally:
        _tell(DEFAULTS)
        give_back()


def give_back() -> None:
    """Give what is free to the kernel, where glibc holds it."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _tell(values: dict[int, int]) -> None:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for name, value in values.items():
            libc.mallopt(name, value)
