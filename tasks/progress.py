"""Progress of a running stage: steps done, curve points, pictures.

A stage knows neither Prefect nor MLflow; the flow that runs it listens and passes the reports on. Without a listener
the calls cost nothing. Only stages inside the flow's own process (distill, evaluate) are heard live.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """Report of a running stage; fields that do not apply stay empty."""

    step: int
    total: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)


Listener = Callable[[Progress], None]
_listener: ContextVar[Listener | None] = ContextVar("stillroom_progress_listener", default=None)


def report(
    step: int,
    total: int | None = None,
    metrics: dict[str, float] | None = None,
    pictures: dict[str, Path] | None = None,
) -> None:
    """Send a report to the listener, if any; `metrics` are curve points at `step`."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(step, total, metrics or {}, pictures or {}))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Receive every report made inside the block, in this thread of work."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
