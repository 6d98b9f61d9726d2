"""Memory of one process: a plan asks for the same listing, labels and landmarks once for every block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Value = TypeVar("Value")

_of_files: dict[tuple[str, Path], tuple[tuple[int, int], Any]] = {}
_of_objects: dict[tuple[str, Path], tuple[tuple[object, ...], Any]] = {}


def remembered(what: str, path: Path, read: Callable[[], Value]) -> Value:
    """`read()`, once for each state of a file, by its size and mtime."""
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    known = _of_files.get((what, path))
    if known is None or known[0] != stamp:
        known = _of_files[what, path] = (stamp, read())
    value: Value = known[1]
    return value


def derived(what: str, path: Path, sources: tuple[object, ...], make: Callable[[], Value]) -> Value:
    """`make()`, once for the same source objects, which `remembered` or `derived` returned."""
    known = _of_objects.get((what, path))
    if known is None or [id(each) for each in known[0]] != [id(each) for each in sources]:
        known = _of_objects[what, path] = (sources, make())
    value: Value = known[1]
    return value
