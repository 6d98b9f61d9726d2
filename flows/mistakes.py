"""Mistakes of a user, shown as one message without a traceback. Any other exception is a bug."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_catalog.config.disk_errors import disk_mistake
from data_catalog.config.errors import UserError
from data_catalog.config.plain_text import printable
from flows.lines import fitted
from models.zoo.zoo import WeightsError

MISTAKES = (UserError, WeightsError)


def find_mistake(error: BaseException, root: Path | None = None) -> Exception | None:
    """Return an error as a mistake that a user can correct: an error of the disk becomes one. None for a bug."""
    return error if isinstance(error, MISTAKES) else disk_mistake(error, root)


@contextmanager
def saying_mistakes() -> Iterator[None]:
    """Print a mistake as one message and exit 1; a bug keeps its traceback."""
    try:
        yield
    except Exception as error:
        mistake = find_mistake(error)
        if mistake is None:
            raise
        sys.stderr.write(fitted(f"error: {printable(str(mistake))}\n"))
        sys.exit(1)
