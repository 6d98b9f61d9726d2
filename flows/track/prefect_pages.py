"""Prefect's pages of a run: a task run per piece of work with a descriptive state, the plan, progress.

Without Prefect (a flow called as a plain function) the same work runs and nothing is shown. Where its server goes away
during a run, the work goes on, and nothing more is shown.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from prefect import task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.events.clients import NullEventsClient
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Running
from prefect.types import DateTime
from prefect.utilities.engine import emit_task_run_state_change_event

from flows.mistakes import MISTAKES
from tasks.progress import Pace
from tasks.sources.names import counted

PROGRESS_SECONDS = 3.0  # seconds between two updates of a progress artifact; each costs the server some 20 ms
CAUSES_SHOWN = 3  # of a task run's failed partitions
LOG_SECONDS = 15.0  # seconds between two log lines about a running stage

Shown = TypeVar("Shown")

log = logging.getLogger(__name__)

_lost: set[str] = set()  # flow runs whose server does not answer any more


@dataclass
class Tally:
    """Counts of the partitions of one piece of work."""

    made: int = 0
    cached: int = 0
    failed: int = 0
    blocked: int = 0
    samples: int = 0
    rejected: int = 0
    asking: int = 0  # made, and judged again once further attempts are made
    what: str = "samples"
    reasons: str = ""  # of the rejected
    causes: list[str] = field(default_factory=list)  # of the failed

    @property
    def text(self) -> str:
        what = self.what.removesuffix("s")
        words = [f"{self.cached} up to date"] if self.cached or not (self.made or self.asking) else []
        words += [f"{self.made} made with {counted(self.samples, what)}"] if self.made else []
        words += [f"{self.asking} too few samples: further attempts follow"] if self.asking else []
        reasons = f" ({self.reasons})" if self.reasons else ""
        words += [f"{counted(self.rejected, what)} rejected{reasons}"] if self.rejected else []
        words += [f"{count} {word}" for count, word in ((self.failed, "failed"), (self.blocked, "blocked")) if count]
        return ", ".join(words)


Mark = Callable[[tuple[float, float]], None]  # told of each job of other processes when they were at it


def flow_run_id() -> str | None:
    """The id of the Prefect flow run that this code is in, or None."""
    context = FlowRunContext.get()
    return str(context.flow_run.id) if context is not None and context.flow_run is not None else None


def server_answers() -> bool:
    """Whether the Prefect server of this process's settings answers. Prefect's own client would try for a minute."""
    url = PREFECT_API_URL.value()
    try:
        return bool(url) and httpx.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def end_flow_run(run_id: str, ended: str, message: str) -> bool:
    """Set a flow run that its process left to its final state. Returns False where no server answers.

    ended: completed | failed | cancelled | killed.
    """
    if not server_answers():
        return False
    states = {"completed": Completed, "failed": Failed, "cancelled": Cancelled, "killed": Crashed}
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(run_id)).state
        except ObjectNotFound:
            return True
        if state is None or not state.is_final():
            client.set_flow_run_state(UUID(run_id), states[ended](message=message), force=True)
    return True


def lose_server() -> None:
    """Show nothing more of the current flow run: each try would cost a minute, and each event seconds at the end."""
    run_id = flow_run_id()
    if run_id is not None and run_id not in _lost:
        _lost.add(run_id)
        EventsWorker.set_client_override(NullEventsClient)
        log.warning("the Prefect server does not answer; the run goes on, and its page stays as it is")


def _show(show: Callable[[], Shown]) -> Shown | None:
    """Show something on the page of the current flow run, if there is one and its server answers."""
    run_id = flow_run_id()
    if run_id is None or run_id in _lost:
        return None
    try:
        return show()
    except httpx.HTTPError as error:
        log.debug("Prefect: %s", error)
        lose_server()
        return None


def show_waiting(said: str) -> None:
    """Show that the flow run waits, and for what."""
    _show(lambda: _set_state(Running(name="Waiting", message=said)))


def show_going_on() -> None:
    """Show that the flow run goes on after it waited."""
    _show(lambda: _set_state(Running()))


def _set_state(state: State[Any]) -> None:
    run_id = flow_run_id()
    assert run_id is not None
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id), state, force=True)


def show_work(name: str, run_name: str, work: Callable[[], Tally]) -> None:
    """Do a piece of work as a task run whose state describes the result. An exception of the work is raised."""
    if flow_run_id() is None:
        work()
        return
    errors: list[Exception] = []

    # Prefect's cache trusts a result file instead of the store: only ours is used.
    @task(name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)
    def carry_out() -> State[Any]:
        try:
            return _state(work())
        except Exception as error:
            errors.append(error)
            raise

    # Prefect would raise for a state that only reports failed partitions; the run continues after those.
    carry_out(return_state=True)
    # A failed partition is no error; an error of the work itself ends the run, as it does without Prefect.
    for error in errors:
        raise error


def show_work_elsewhere(name: str, run_name: str, since: float, work: Callable[[Mark], Tally]) -> None:
    """Await work of other processes as a task run, and show the times at which they were at it in the end.

    Pieces of work are awaited one after another, and overlap in truth: Prefect's own engine would show the waiting.

    since: when all pieces were handed out, in Unix seconds.
    """
    run_id = flow_run_id()
    if run_id is None or run_id in _lost:
        work(lambda span: None)
        return
    bar = TaskRunBar(name, run_name, UUID(run_id), since)
    try:
        tally = work(bar.mark)
    except BaseException as error:
        bar.end(Failed(message=str(error)) if isinstance(error, Exception) else Cancelled())
        raise
    bar.end(_state(tally))


class TaskRunBar:
    """Task run that Prefect's engine does not execute. As the engine does, it tells the server by events."""

    def __init__(self, name: str, run_name: str, run_id: UUID, since: float) -> None:
        """Begin it. Its first states lie before all work: the server passes over a state older than the last."""
        key = uuid4()
        self._run = TaskRun(id=key, name=run_name, flow_run_id=run_id, task_key=name, dynamic_key=key.hex, run_count=1)
        self._began, self._ended = math.inf, 0.0
        self._last: State[Any] | None = None
        self._run.expected_start_time = self._run.start_time = at(time.time())
        self._tell(Pending(), since - 2e-3)
        self._tell(Running(), since - 1e-3)

    def mark(self, span: tuple[float, float]) -> None:
        """Take note of a job that other processes were at, from and to in Unix seconds."""
        self._began, self._ended = min(self._began, span[0]), max(self._ended, span[1])

    def end(self, state: State[Any]) -> None:
        """Show how the work ended, from the beginning of its first job to the end of its last."""
        if self._ended:
            self._run.start_time, self._run.end_time = at(self._began), at(self._ended)
        else:  # no job came to an end
            self._run.end_time = at(time.time())
        assert self._run.start_time is not None
        self._run.total_run_time = self._run.end_time - self._run.start_time
        self._tell(state, self._run.end_time.timestamp())

    def _tell(self, state: State[Any], moment: float) -> None:
        after = state.model_copy(update={"timestamp": at(moment)})
        emit_task_run_state_change_event(self._run, self._last, after)
        self._last = after


def at(seconds: float) -> DateTime:
    """Return a moment of Unix time."""
    return DateTime.fromtimestamp(seconds, UTC)


def _state(tally: Tally) -> State[Any]:
    if tally.failed or tally.blocked:
        return Failed(message="\n".join([tally.text, *tally.causes[:CAUSES_SHOWN]]))
    busy = tally.made or tally.asking
    return Completed(message=tally.text) if busy else Completed(name="Cached", message=tally.text)


def show_plan(rows: list[dict[str, Any]]) -> None:
    """The plan as a table on the flow run's page."""
    table = [{**row, "reasons": "; ".join(row["reasons"][:3])} for row in rows]
    _show(lambda: create_table_artifact(table=table, key="plan", description="What this run makes, and why"))


def show_funnels(rows: list[dict[str, Any]]) -> None:
    """Show what the gates left of each style, as a table on the flow run's page."""
    _show(lambda: create_table_artifact(table=rows, key="funnels", description="Pseudo-labels left after each check"))


FIRST_COLUMNS = ("method", "id", "clip", "three_d", "lpips", "seconds_per_image")  # as in the paper's Table 1


def show_table(key: str, rows: list[dict[str, Any]], description: str) -> None:
    """Show a table of results on the flow run's page."""
    ordered = ({**{name: row[name] for name in FIRST_COLUMNS if name in row}, **row} for row in rows)
    table = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in ordered]
    _show(lambda: create_table_artifact(table=table, key=key, description=description))


def show_tracked(page: str | None) -> None:
    """Link the flow run's page to its MLflow run."""
    if page is not None:
        _show(lambda: create_link_artifact(link=page, link_text=page, key="mlflow-run", description="Its MLflow run"))


def show_files(page: str | None, files: Sequence[str]) -> None:
    """Show which files the run logged to MLflow, with links where its pages are up."""
    if not files:
        return
    lines = [f"- [{name}]({page}/artifacts/{quote(name)})" if page else f"- {name}" for name in dict.fromkeys(files)]
    said = "\n".join([*lines, *([] if page else ["", "They are in the MLflow run: `make up` shows its pages."])])
    _show(lambda: create_markdown_artifact(markdown=said, key="results", description="Reports and pictures, in MLflow"))


class ProgressBar:
    """Progress of a stage: a log line now and then and, in a flow run, a progress artifact."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._logged = time.monotonic()
        self._pace = Pace()
        self._artifact: UUID | None = None
        self._told = 0.0
        self._active = flow_run_id() is not None

    def update(self, done: int, total: int, until: int | None = None) -> None:
        """Report `done` of `total` steps; the last one is always reported. until: the last one of the present kind."""
        now, told = time.monotonic(), self._pace.told(done, total, until)
        if done < total and now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.info("%-10s %s", self.stage, told)
        if not self._active or (done < total and now - self._told < PROGRESS_SECONDS):
            return
        self._told, percent = now, 100 * done / max(total, 1)
        known = self._artifact
        if known is not None:
            _show(lambda: update_progress_artifact(known, progress=percent))
            return
        made = _show(lambda: create_progress_artifact(percent, key=f"{self.stage}-progress", description=self.stage))
        assert made is None or isinstance(made, UUID)
        self._artifact = made


class WithoutUserTracebacks(logging.Filter):
    """Filter that removes tracebacks of users' mistakes; Prefect would add them."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, MISTAKES):
            record.exc_info, record.exc_text = None, None
            record.msg, record.args = f"error: {error}", ()
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(WithoutUserTracebacks())


def log_plainly() -> None:
    """Pass our log lines through; to stderr where logging is not set up, as in a process of Prefect's."""
    for name in ("flows", "tasks", "data_catalog"):
        logging.getLogger(name).setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
