"""Declaration of a flow: names of its runs, checked parameters, and a user's mistake as one line of its state."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import prefect
from prefect.context import FlowRunContext
from prefect.states import Failed

from flows.mistakes import find_mistake
from flows.track.flow_run_names import name_run
from flows.track.prefect_pages import server_answers

P = ParamSpec("P")
R = TypeVar("R")


def flow(name: str) -> Callable[[Callable[P, R]], prefect.Flow[P, R]]:
    """Declare a function as a Prefect flow of ours."""

    def declare(function: Callable[P, R]) -> prefect.Flow[P, R]:
        return prefect.flow(name=name, flow_run_name=name_run, validate_parameters=True)(_plainly(function))

    return declare


def _plainly(function: Callable[P, R]) -> Callable[P, R]:
    """Let a mistake end a flow run in a state with its own words; Prefect would put the class of the error first."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            mistake = find_mistake(error)
            # Without its server the state cannot be set: the error itself has to be found by the caller.
            if mistake is None or FlowRunContext.get() is None or not server_answers():
                raise
            said = "; ".join(" ".join(line.split()) for line in str(mistake).splitlines())
            return cast(Any, Failed(message=said, data=mistake))

    return run
