"""Seconds per image of each method, side by side: one picture at a time, warm, on one thread, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import torch


def time_methods(methods: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each. They take turns, so that a busy moment of the machine falls on all of them.

    The first turn warms up and is not counted, unless repeats is 0 and there is no other.

    One thread, since what more of them give differs between machines and, for one small picture, is little or less
    than nothing; a GPU is not touched by that.
    """
    with one_thread():
        return _take_turns(methods, repeats, device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Work on one thread; only then a process's seconds of work are those of the clock."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _take_turns(methods: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    with torch.no_grad():
        for turn in range(repeats + 1):
            for name, method in methods.items():
                spent = _time_one(method, device)
                if turn > 0 or repeats == 0:
                    seconds[name].append(spent)
    return {name: median(values) for name, values in seconds.items()}


def _time_one(method: Callable[[], object], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    method()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    """A GPU works behind Python's back."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
