"""Progress of a running stage: steps done, curve points, pictures; and the time left.

A stage knows neither Prefect nor MLflow; the flow that runs it listens and passes the reports on. Without a listener
the calls cost nothing. Only stages inside the flow's own process (distill, evaluate) are heard live.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

MARK_S, MARKS = 1.0, 60  # seconds between two marks of a pace, at least; the marks that it looks back on


@dataclass(frozen=True)
class Progress:
    """Report of a running stage; fields that do not apply stay empty. until: last step of a kind, before other ones."""

    step: int
    total: int | None = None
    until: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)


Listener = Callable[[Progress], None]
_listener: ContextVar[Listener | None] = ContextVar("stillroom_progress_listener", default=None)


def report(
    step: int,
    total: int | None = None,
    metrics: dict[str, float] | None = None,
    pictures: dict[str, Path] | None = None,
    until: int | None = None,
) -> None:
    """Send a report to the listener, if any; `metrics` are curve points at `step`."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(step, total, until, metrics or {}, pictures or {}))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Receive every report made inside the block, in this thread of work."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Pace:
    """Pace of counted steps, without the time before the first: workers start and networks load in it.

    Steps may be of several kinds, one after the other. until: the last step of the present kind, None for that of all;
    each kind has a pace of its own.
    """

    def __init__(self, start: int = 0) -> None:
        """start: steps of earlier attempts."""
        self._done = start
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS)
        self._step_s: float | None = None
        self._until: int | None = None

    def step_seconds(self, done: int, until: int | None = None) -> float | None:
        """Note that so many steps are done. Returns the seconds of the next one; None while they are not known."""
        if until != self._until:
            self._marks.clear()
            self._until, self._step_s = until, None
        if done <= self._done:
            return self._step_s
        self._done, now = done, monotonic()
        if self._marks and now - self._marks[0][0] >= MARK_S:
            began, before = self._marks[0]
            self._step_s = (now - began) / (done - before)
        if not self._marks or now - self._marks[-1][0] >= MARK_S:
            self._marks.append((now, done))
        return self._step_s

    def seconds_left(self, done: int, total: int, until: int | None = None) -> float | None:
        """Note that so many steps are done. Returns the seconds that the others will take; None if not known."""
        step_s = self.step_seconds(done, until)
        return None if step_s is None or until is not None else step_s * (total - done)

    def told(self, done: int, total: int, until: int | None = None) -> str:
        """Return `12 of 40`, and the time left once it is known."""
        return f"{done} of {total}{tell_left(self.seconds_left(done, total, until) if done < total else None)}"


def tell_left(seconds: float | None) -> str:
    """Return `, about 12 min left`, or nothing where that is not known."""
    return "" if seconds is None else f", about {tell_time(seconds)} left"


def tell_time(seconds: float) -> str:
    """Return seconds as `3 h`, `12 min` or `45 s`."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


class Bar(tqdm):
    """Bar of tqdm whose time left is that of a pace. until: the last step of a first kind, before dearer ones."""

    def __init__(self, *args: Any, until: int = 0, **options: Any) -> None:
        self._pace, self._until = Pace(options.get("initial", 0)), until
        super().__init__(*args, **options)

    @property
    def format_dict(self) -> dict[str, Any]:
        """Return the values to show: without a pace, no time left."""
        until = self._until if self.n < self._until else None
        step_s = self._pace.step_seconds(self.n, until)
        return {**super().format_dict, "rate": 1 / step_s if step_s and until is None else 0.0}
