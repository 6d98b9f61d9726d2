"""Lifecycle of a run's records: MLflow's run is always ended, however the flow ends."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.workspace import Workspace
from flows.ask.shelf import compare_with_profile
from flows.run import active
from flows.run.active import ActiveNote, ActiveRun, Turn
from flows.run.first_look import work_begins
from flows.run.history import RunNote, last_runs, note_run
from flows.run.processes import find_service
from flows.track.addresses import shown
from flows.track.mlflow_client import make_client
from flows.track.mlflow_database import open_database
from flows.track.mlflow_runs import Tracker, end_left_run, ending, find_run
from flows.track.prefect_pages import (
    end_flow_run,
    flow_run_id,
    lose_server,
    server_answers,
    show_files,
    show_going_on,
    show_tracked,
    show_waiting,
)
from tasks.dataset import recipe
from tasks.distill import chosen_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

SHARING = ("ablate", "claims")
TELL_SECONDS = 60.0  # seconds between two messages about the same wait

log = logging.getLogger(__name__)

DIFFERENCES, LONGEST = 3, 48  # settings in the name of a run, and characters of each word there


@contextmanager
def tracked(
    workspace: Workspace,
    flow: str,
    parameters: dict[str, Any] | None = None,
    turn: Turn | None = None,
    made_with: Mapping[str, Any] | None = None,
    find_maker: Callable[[], str | None] | None = None,
) -> Iterator[tuple[Tracker, ActiveNote]]:
    """Open MLflow's run of a flow and note it as active, once the data root is free; end both in every case.

    made_with: sections of settings of what the run takes as it is, from its record.  find_maker: called once the
    root is free; finds MLflow's run that made the product, where there is nothing to make and so no second run of it.

    An error ends the run as FAILED, a signal or Ctrl-C as KILLED. What earlier processes left running is ended first.
    """
    work_begins()
    root = workspace.root
    title = title_of(flow, parameters or {}, workspace.settings, made_with or {})
    tracker = Tracker(root, workspace.settings, flow, flow_run_id(), title, made_with)
    own = None if tracker.is_own else shown(tracker.uri)
    end_left_runs(root, own, tracker.client)
    run = ActiveRun(
        flow=flow,
        profile=workspace.profile,
        root=str(root.resolve()),
        mlflow_uri=own,
        mlflow_run_id=None,
        flow_run_id=flow_run_id(),
        overrides=list(workspace.overrides),
        parameters=parameters or {},
    )
    # Until MLflow knows of the end: a second signal may come before that.
    with active.noted(root, run, turn or make_turn(workspace, flow)) as note:
        try:
            maker = find_maker() if find_maker else None
            if maker is None or not tracker.adopt(maker):
                note.logged_as(tracker.begin(note.id))  # the note first: a run without one would stay for ever
            page = mlflow_page(tracker)
            show_tracked(page)
            yield tracker, note
            show_files(page, tracker.files)
        except BaseException as error:
            try:
                tracker.finish(ending(error))
            except Exception as second:  # the first error matters more
                log.warning("the end of the run could not be logged to MLflow: %s", second)
            _keep_untold(note, tracker, "failed" if isinstance(error, Exception) else "cancelled", ending(error))
            raise
        tracker.finish()
        _keep_untold(note, tracker, "completed", "FINISHED")


def make_turn(workspace: Workspace, flow: str) -> Turn:
    """Return the turn of a run of this flow: it waits for other runs on the data root unless run.wait is off.

    Runs of one laboratory flow share their arms among them, and do not wait for each other.
    """
    told: dict[tuple[str, int], float] = {}

    def waits_for(other: ActiveRun) -> bool:
        return workspace.settings.run.wait and not (other.flow == flow and flow in SHARING)

    def tell(other: ActiveRun | None) -> None:
        if other is None:
            show_going_on()
            log.info("the data root is free; the run goes on")
            return
        said, key = f"waiting for {active.describe(other)}", (other.host, other.pid)
        if time.monotonic() - told.get(key, -TELL_SECONDS) >= TELL_SECONDS:
            told[key] = time.monotonic()
            log.warning("%s; --set run.wait=false runs beside it", said)
            show_waiting(said)

    return Turn(waits_for, tell)


def mlflow_page(tracker: Tracker) -> str | None:
    """Return the address of the run's page; None where MLflow's pages are not up."""
    parts, base = urlsplit(tracker.uri), None
    if parts.scheme in ("http", "https"):  # a link without the password
        base = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    elif tracker.is_own:
        service = find_service(tracker.root / "mlflow", "ui")
        base = service.url if service is not None else None
    return base and f"{base.rstrip('/')}/#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}"


def title_of(flow: str, parameters: Mapping[str, Any], settings: Settings, made_with: Mapping[str, Any]) -> str:
    """Return the name of a run: the flow, its style or prompt, and the settings that differ from the profile's own."""
    asked = [parameters.get(name) for name in ("style", "styles", "prompt")]
    words = [", ".join(each) if isinstance(each, list) else str(each) for each in asked if each]
    chosen = recipe(settings) | {"distill": chosen_settings(settings)}
    told = {**settings.model_dump(mode="json", exclude={"run"}), **chosen, **made_with}
    sections = [*type(settings).model_fields]
    found = compare_with_profile(told, load_settings(settings.profile))
    found.sort(key=lambda each: -sections.index(each["setting"].partition(".")[0]))  # the last stage first
    words += [f"{each['setting'].removeprefix('distill.')}={each['value']}" for each in found[:DIFFERENCES]]
    if len(found) > DIFFERENCES:
        words.append(f"and {len(found) - DIFFERENCES} more settings")
    return " ".join([flow, *(word if len(word) <= LONGEST else f"{word[: LONGEST - 3]}..." for word in words)])


def _keep_untold(note: ActiveNote, tracker: Tracker, ended: str, status: str) -> None:
    """Keep the note of a run whose end Prefect or MLflow cannot be told before a later start: the server is gone."""
    prefect_is_gone = bool(note.run.flow_run_id) and not server_answers()
    if prefect_is_gone:
        lose_server()
    if prefect_is_gone or tracker.lost is not None:
        note.keep(ended, status if tracker.lost is not None else None)


def end_left_runs(root: Path, mlflow_uri: str | None = None, client: "MlflowClient | None" = None) -> list[ActiveRun]:
    """End runs of dead processes, in MLflow and in the list of last runs. Returns those runs.

    mlflow_uri: the tracking store in use as notes show it, None for the one below the data root. Runs in other stores
    are left for a start that uses them.  client: of that store; None opens it by its address.
    """
    ended = []
    for path, run in active.left_runs(root):
        ours = mlflow_uri is None or run.belongs_to(root)
        if run.mlflow_uri != mlflow_uri and (run.ended is None or run.mlflow_status):
            if not run.belongs_to(root):
                active.forget(path)  # in a copied data root, the run is the original's
            continue
        if run.ended is None or run.mlflow_status:
            client = client or make_client(mlflow_uri or open_database(root))
            if ours:
                _end_in_mlflow(client, path.stem, run)
        if run.ended is None:
            note_killed(root, run, datetime.fromtimestamp(path.stat().st_mtime, UTC))
            log.info("%s was killed at %s; its records now show it", run.flow, run.stage or "its start")
            run.ended = "killed"
            ended.append(run)
        run.mlflow_status = None
        if _told_prefect(root, run):
            active.forget(path)
        else:
            ActiveNote(path, run)
    return ended


def _end_in_mlflow(client: "MlflowClient", note: str, run: ActiveRun) -> None:
    """End the run of a note. A process that died between the two writes had not noted the run's id."""
    try:
        run_id = run.mlflow_run_id or find_run(client, run.profile, note)
        if run_id is not None:
            end_left_run(client, run_id, run.mlflow_status or "KILLED")
    except Exception as error:
        log.warning("the records of an earlier process, MLflow run %s: %s", run.mlflow_run_id or note, error)


def _told_prefect(root: Path, run: ActiveRun) -> bool:
    """Tell Prefect how a run ended that its process could not tell of. Returns False where no server answers."""
    if run.flow_run_id is None or not run.belongs_to(root):
        return True
    where = run.stage or "its start"
    said = f"its process died at {where}" if run.ended == "killed" else f"{run.ended} while the server was away"
    return end_flow_run(run.flow_run_id, run.ended or "killed", said)


def note_killed(root: Path, run: ActiveRun, ended: datetime) -> None:
    """Add a run whose process died to the list of last runs, unless the flow has ended another one since."""
    before = next((note for note in last_runs(root) if note.flow == run.flow), None)
    if before is not None and datetime.fromisoformat(before.ended) > datetime.fromisoformat(run.began):
        return
    note = RunNote(
        flow=run.flow,
        profile=run.profile,
        state="killed",
        seconds=round((ended - datetime.fromisoformat(run.began)).total_seconds(), 2),
        stage=run.stage,
        overrides=run.overrides,
        parameters=run.parameters,
        # Earlier failures are still to be retried.
        failed=before.failed if before is not None else {},
        blocked=before.blocked if before is not None else [],
        ended=ended.isoformat(timespec="seconds"),
    )
    note_run(root, note)
