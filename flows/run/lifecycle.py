"""Lifecycle of a run's records: MLflow's run is always ended, however the flow ends."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.workspace import Workspace
from flows.run import active
from flows.run.active import ActiveNote, ActiveRun
from flows.run.history import RunNote, last_runs, note_run
from flows.track.mlflow_runs import Tracker, end_left_run, ending, tracking_uri
from flows.track.prefect_pages import end_flow_run, flow_run_id, lose_server, server_answers

log = logging.getLogger(__name__)


@contextmanager
def tracked(
    workspace: Workspace, flow: str, parameters: dict[str, Any] | None = None
) -> Iterator[tuple[Tracker, ActiveNote]]:
    """Open MLflow's run of a flow and note it as active; end both in every case.

    An error ends the run as FAILED, a signal or Ctrl-C as KILLED. What earlier processes left running is ended first.
    """
    root = workspace.root
    tracker = Tracker(root, workspace.settings, flow, flow_run_id())
    own = None if tracker.is_own else tracker.uri
    end_left_runs(root, own)
    run = ActiveRun(
        flow=flow,
        profile=workspace.profile,
        root=str(root.resolve()),
        mlflow_uri=own,
        mlflow_run_id=tracker.run_id,
        flow_run_id=flow_run_id(),
        overrides=list(workspace.overrides),
        parameters=parameters or {},
    )
    with active.noted(root, run) as note:  # until MLflow knows of the end: a second signal may come before that
        try:
            yield tracker, note
        except BaseException as error:
            try:
                tracker.finish(ending(error))
            except Exception as second:  # the first error matters more
                log.warning("MLflow could not be told that the run ended: %s", second)
            _keep_for_prefect(note, "failed" if isinstance(error, Exception) else "cancelled")
            raise
        tracker.finish()
        _keep_for_prefect(note, "completed")


def _keep_for_prefect(note: ActiveNote, ended: str) -> None:
    """Keep the note of a flow run whose server is gone: Prefect cannot be told how it ended before a later start."""
    if note.run.flow_run_id and not server_answers():
        lose_server()
        note.keep(ended)


def end_left_runs(root: Path, mlflow_uri: str | None = None) -> list[ActiveRun]:
    """End runs of dead processes, in MLflow and in the list of last runs. Returns those runs.

    mlflow_uri: the tracking store in use, None for the one below the data root. Runs in other stores are left for a
    start that uses them.
    """
    ended = []
    for path, run in active.left_runs(root):
        ours = mlflow_uri is None or run.belongs_to(root)
        if run.mlflow_uri != mlflow_uri and run.ended is None:
            if not run.belongs_to(root):
                active.forget(path)  # in a copied data root, the run is the original's
            continue
        if run.ended is None:
            _end_killed(root, path, run, mlflow_uri, ours)
            run.ended = "killed"
            ended.append(run)
        if _told_prefect(root, run):
            active.forget(path)
        else:
            ActiveNote(path, run)
    return ended


def _end_killed(root: Path, path: Path, run: ActiveRun, mlflow_uri: str | None, ours: bool) -> None:
    try:
        if ours:
            end_left_run(mlflow_uri or tracking_uri(root), run.mlflow_run_id)
    except Exception as error:
        log.warning("the records of a dead process, MLflow run %s: %s", run.mlflow_run_id, error)
    note_killed(root, run, last_touched(path))
    log.info("%s was killed at %s; its records say so now", run.flow, run.stage or "its start")


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


def last_touched(path: Path) -> datetime:
    """Return the time at which a note was last written."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
