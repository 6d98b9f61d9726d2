"""Answers to a visitor's mistakes and to errors of the server, in the place where something was done."""

import logging
from collections.abc import Callable
from typing import Any

import gradio as gr

from data_catalog.config.errors import UserError
from flows.page import figures

Listener = Callable[..., Any]

log = logging.getLogger(__name__)


def unchanged(outputs: int) -> tuple[Any, ...]:
    """Return what leaves so many outputs as they are."""
    return tuple(gr.skip() for _ in range(outputs))


def answered(act: Listener, others: tuple[Any, ...]) -> Listener:
    """Return a handler that shows what went wrong in the last of its outputs. The others then become `others`.

    A bug, a full disk or a lack of memory is written to the log with its traceback, and said on the page.
    """

    def answer(*given: Any) -> Any:
        try:
            return act(*given)
        except UserError as error:
            wrong = error
        except Exception:
            log.exception("the page could not answer")
            wrong = UserError("the server could not do this", hint="try it again; its log says why")
        shown = figures.problem(wrong)
        return (*others, shown) if others else shown

    return answer
