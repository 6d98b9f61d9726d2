"""Labels that a user gives to a run: a name, a note and tags, for MLflow's pages."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from data_catalog.config.errors import UserError

OURS = ("mlflow.", "stillroom.", "git.")  # tags that the run itself writes


@dataclass(frozen=True)
class Labels:
    """Name instead of the run's own, a note, and tags."""

    name: str | None = None
    note: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


_given: ContextVar[Labels | None] = ContextVar("stillroom_labels", default=None)


@contextmanager
def labelled(name: str | None, note: str | None, tags: Sequence[str] | None) -> Iterator[None]:
    """Give these labels to every run that begins inside the block; without any, those of a block around it stay."""
    token = _given.set(read_labels(name, note, tags) if name or note or tags else given_labels())
    try:
        yield
    finally:
        _given.reset(token)


def given_labels() -> Labels:
    """Return the labels of the run that begins."""
    return _given.get() or Labels()


def read_labels(name: str | None, note: str | None, tags: Sequence[str] | None) -> Labels:
    """Read labels, each tag as `KEY=VALUE`. Raises UserError for a tag that is not a user's."""
    pairs = {}
    for each in tags or []:
        key, sign, value = each.partition("=")
        if not sign or not key.strip() or not all(c.isalnum() or c in "_-./ " for c in key):
            expected = "KEY=VALUE; a key has letters, digits, and _ - . / only"
            raise UserError("a tag cannot be read", found=each, expected=expected, hint="--tag why=baseline")
        if key.startswith(OURS):
            raise UserError(
                f"the tag {key} is not free", expected=f"a key without {', '.join(OURS)} in front", found=each
            )
        pairs[key.strip()] = value
    return Labels(name, note, pairs)
