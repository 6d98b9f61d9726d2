"""What a stage says while it works: steps done, curve points, pictures. Whoever runs the stage may listen.

A stage knows neither Prefect nor MLflow; the flow that runs it listens and passes on. With nobody listening
the calls cost nothing. Only stages that run inside the flow's own process (distill, evaluate) are heard live.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """One message of a running stage; the fields that do not apply stay empty."""

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
    """Tell the listener, if any, where this stage stands: `metrics` are curve points at `step`."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(step, total, metrics or {}, pictures or {}))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear every report made inside the block, in this thread of work."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
