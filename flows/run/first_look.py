"""Look for a user's mistakes before a run exists, so that none of them is a failed run in Prefect or MLflow."""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

# Flows that only read before their work begins.
LOOKED_AT = ("build-dataset", "distill", "evaluate", "baselines", "adapt-style", "edit-video")

_looking: ContextVar[bool] = ContextVar("looking", default=False)


class WorkBegins(BaseException):
    """End of a first look: everything that is checked before the work is right."""


def work_begins() -> None:
    """End a first look here. Called where a flow has checked what it was given."""
    if _looking.get():
        raise WorkBegins


def look(flow: Callable[..., Any], **parameters: Any) -> None:
    """Call a flow, as a plain function, up to the place where its work begins. Raises the mistake that it finds."""
    looking, before = _looking.set(True), logging.root.manager.disable
    logging.disable(logging.WARNING)  # the run itself says it
    try:
        flow(**parameters)
    except WorkBegins:
        pass
    finally:
        logging.disable(before)
        _looking.reset(looking)
