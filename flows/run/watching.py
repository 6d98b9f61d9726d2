"""Watching a flow run through Prefect's API, wherever it is executed: its states, and our lines of its log."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx

from data_catalog.config.errors import UserError
from flows.run.signals import LeftRunning

POLL_SECONDS = 1.0
LATE_SECONDS = 30.0  # seconds that a line may arrive after later ones; a process sends its lines in batches
GONE_SECONDS = 60.0  # seconds without an answer after which the server counts as gone
PAGE = 200  # lines of one answer, Prefect's own limit
OURS = ("flows.", "tasks.", "data_catalog.")  # beginnings of the names of our loggers


def watch(run_id: UUID, page: str, say: Callable[[str], None]) -> Any:
    """Say what becomes of a flow run and of those below it, until it has ended. Returns the run.

    page: its address. Ctrl-C and signals end the watching alone: they raise LeftRunning.
    """
    try:
        return _watch(run_id, page, say)
    except (KeyboardInterrupt, SystemExit) as error:
        said = f"the run goes on: {page}\n  watch it    prefect flow-run watch {run_id}"
        raise LeftRunning(error, f"{said}\n  end it      prefect flow-run cancel {run_id}") from None


def _watch(run_id: UUID, page: str, say: Callable[[str], None]) -> Any:
    from prefect.client.orchestration import get_client

    lines, answered = Lines(run_id, say), time.monotonic()
    told: str | None = None
    while True:
        try:
            with get_client(sync_client=True) as client:
                run = client.read_flow_run(run_id)
                lines.say_new(client)
        except httpx.HTTPError as error:
            if time.monotonic() - answered > GONE_SECONDS:
                hint = f"make up, then: prefect flow-run watch {run_id}"
                raise UserError("the Prefect server does not answer; the run goes on", page=page, hint=hint) from error
            time.sleep(POLL_SECONDS)
            continue
        answered = time.monotonic()
        state = run.state
        if state is not None and state.name != told:
            told = state.name
            message = (state.message or "").partition("\n")[0]
            is_said = state.is_completed() or state.is_running()  # by the outcome, and by a line of the log
            say(str(told).lower() + (f": {message}" if message and not is_said else ""))
        if state is not None and state.is_final():
            return run
        time.sleep(POLL_SECONDS)


class Lines:
    """Our lines of the log of a run and of the runs below it, each said once."""

    def __init__(self, run_id: UUID, say: Callable[[str], None]) -> None:
        self.run_id, self.say = run_id, say
        self._since: Any = None  # of the latest line
        self._said: set[UUID] = set()

    def say_new(self, client: Any) -> None:
        """Read what was written since the last call."""
        from prefect.client.schemas import filters

        below = filters.FlowRunFilter(parent_flow_run_id=filters.FlowRunFilterParentFlowRunId(any_=[self.run_id]))
        runs = [self.run_id, *(each.id for each in client.read_flow_runs(flow_run_filter=below))]
        since = self._since and self._since - timedelta(seconds=LATE_SECONDS)
        chosen = filters.LogFilter(
            flow_run_id=filters.LogFilterFlowRunId(any_=runs),
            level=filters.LogFilterLevel(ge_=logging.INFO),
            timestamp=filters.LogFilterTimestamp(after_=since) if since else None,
        )
        found: list[Any] = []
        while len(found) % PAGE == 0:
            page = client.read_logs(chosen, limit=PAGE, offset=len(found))
            found += page
            if not page:
                break
        for line in found:
            self._since = max(self._since or line.timestamp, line.timestamp)
            if line.id not in self._said and line.name.startswith(OURS):
                self.say(line.message)
            self._said.add(line.id)
