"""Lifecycle of a run's records: MLflow's run is always ended, however the flow ends."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.config.settings import Settings
from flows.run import active
from flows.run.active import ActiveNote, ActiveRun
from flows.run.history import RunNote, last_runs, note_run
from flows.track.mlflow_runs import Tracker, end_left_run, ending, tracking_uri
from flows.track.prefect_pages import crash_flow_run, flow_run_id

log = logging.getLogger(__name__)


@contextmanager
def tracked(
    root: Path,
    settings: Settings,
    flow: str,
    overrides: Sequence[str] = (),
    parameters: dict[str, Any] | None = None,
) -> Iterator[tuple[Tracker, ActiveNote]]:
    """Open MLflow's run of a flow and note it as active; end both in every case.

    An error ends the run as FAILED, a signal or Ctrl-C as KILLED. What earlier processes left running is ended first.
    """
    tracker = Tracker(root, settings, flow, flow_run_id())
    own = None if tracker.is_own else tracker.uri
    end_left_runs(root, own)
    run = ActiveRun(
        flow=flow,
        profile=settings.profile,
        root=str(root.resolve()),
        mlflow_uri=own,
        mlflow_run_id=tracker.run_id,
        flow_run_id=flow_run_id(),
        overrides=list(overrides),
        parameters=parameters or {},
    )
    try:
        with active.noted(root, run) as note:
            yield tracker, note
    except BaseException as error:
        try:
            tracker.finish(ending(error))
        except Exception as second:  # the first error matters more
            log.warning("the end of the run could not be logged to MLflow: %s", second)
        raise
    tracker.finish()


def end_left_runs(root: Path, mlflow_uri: str | None = None) -> list[ActiveRun]:
    """End runs of dead processes, in MLflow and in the list of last runs. Returns those runs.

    mlflow_uri: the tracking store in use, None for the one below the data root. Runs in other stores are left for a
    start that uses them.
    """
    ended = []
    for path, run in active.left_runs(root):
        ours = mlflow_uri is None or run.belongs_to(root)
        if run.mlflow_uri != mlflow_uri:
            if not run.belongs_to(root):
                active.forget(path)  # in a copied data root, the run is the original's
            continue
        try:
            if ours:
                end_left_run(mlflow_uri or tracking_uri(root), run.mlflow_run_id)
            if run.flow_run_id and run.belongs_to(root):
                crash_flow_run(run.flow_run_id, f"its process died at {run.stage or 'its start'}")
        except Exception as error:
            log.warning("the records of a dead process, MLflow run %s: %s", run.mlflow_run_id, error)
        note_killed(root, run, last_touched(path))
        active.forget(path)
        log.info("%s was killed at %s; its records now show it", run.flow, run.stage or "its start")
        ended.append(run)
    return ended


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
