"""Active runs: a note and a held lock each below the data root.

The lock of a dead process is free; the next start finds its note and ends the run in every record. A copied data root
has copies of the notes but none of the locks.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.store.fingerprint import write_atomically

FOLDER = Path("runs") / "active"  # below the data root
WAIT_SECONDS = 1.0  # seconds between two looks whether the data root is free


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class ActiveRun:
    """Flow that is running, or was when its process died. `stage` is its current stage."""

    flow: str
    profile: str
    root: str  # data root
    mlflow_uri: str | None  # without password; None: the database below the data root
    mlflow_run_id: str | None  # None: not created yet; it gets a tag with the id of the note
    flow_run_id: str | None  # of Prefect
    overrides: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    stage: str | None = None
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    began: str = field(default_factory=now)
    ended: str | None = None  # completed | failed | cancelled | killed; Prefect is still to be told
    mlflow_status: str | None = None  # final status that MLflow is still to be told; it was lost during the run

    def belongs_to(self, root: Path) -> bool:
        """Whether it ran on this data root, here or before the root was moved; false in a copy of the root."""
        return Path(self.root) == root.resolve() or not Path(self.root).exists()


class ActiveNote:
    """Note of an active run, kept up to date."""

    def __init__(self, path: Path, run: ActiveRun) -> None:
        self.path, self.run = path, run
        self._write()

    @property
    def id(self) -> str:
        return self.path.stem

    def logged_as(self, mlflow_run_id: str) -> None:
        """Note MLflow's run, which now exists."""
        self.run.mlflow_run_id = mlflow_run_id
        self._write()

    def at(self, stage: str) -> None:
        """Note the stage that begins."""
        self.run.stage = stage
        self._write()

    def keep(self, ended: str, mlflow_status: str | None = None) -> None:
        """Keep the note after the end, for a start that can tell it to Prefect, or this status to MLflow."""
        self.run.ended, self.run.mlflow_status = ended, mlflow_status
        self._write()

    def _write(self) -> None:
        write_atomically(self.path, json.dumps(asdict(self.run), indent=1).encode())


@contextmanager
def noted(root: Path, run: ActiveRun, turn: "Turn | None" = None) -> Iterator[ActiveNote]:
    """Note the run as in work until the block ends, once it is its turn."""
    from filelock import FileLock

    path = root / FOLDER / f"{run.flow}-{uuid.uuid4().hex[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(_lock(path)):  # lock first: a note without a held lock means a dead process
        try:
            yield ActiveNote(path, run) if turn is None else turn.take(root, path, run)
        finally:
            if run.ended is None:
                path.unlink(missing_ok=True)
            _lock(path).unlink(missing_ok=True)


class Turn:
    """Turn of a run that waits for other runs on its data root. One run after another finds the root free.

    waits_for: whether it waits for that run.  tell: called with the run it waits for, and with None once it goes on.
    """

    def __init__(self, waits_for: Callable[[ActiveRun], bool], tell: Callable[[ActiveRun | None], None]) -> None:
        self._waits_for, self._tell = waits_for, tell
        self.waited = False

    def take(self, root: Path, path: Path, run: ActiveRun) -> ActiveNote:
        """Wait, and write the note of the run."""
        from filelock import FileLock

        while True:
            with FileLock(root / FOLDER.parent / "turn.lock"):  # no other run begins between the look and the note
                before = next((other for other in running(root) if self._waits_for(other)), None)
                if before is None:
                    run.began = now()
                    note = ActiveNote(path, run)
                    break
            self.waited = True
            self._tell(before)
            time.sleep(WAIT_SECONDS)
        if self.waited:
            self._tell(None)
        return note


def running(root: Path) -> list[ActiveRun]:
    """Runs whose processes live, the oldest first."""
    found = [(path, run) for path, run in _read_all(root) if _is_held(path)]
    return [run for _, run in sorted(found, key=lambda each: each[1].began)]


def describe(run: ActiveRun) -> str:
    """Name a run in work, for messages."""
    return f"{run.flow} {run.profile} at {run.stage or 'its start'}, process {run.pid} on {run.host}"


def left_runs(root: Path) -> list[tuple[Path, ActiveRun]]:
    """Notes whose processes died or could not tell Prefect how they ended, with their paths."""
    return [(path, run) for path, run in _read_all(root) if not _is_held(path)]


def killed(root: Path) -> list[ActiveRun]:
    """Runs whose processes died, and whose records do not say so yet."""
    return [run for _, run in left_runs(root) if run.ended is None]


def forget(path: Path) -> None:
    """Remove the note of a dead process."""
    path.unlink(missing_ok=True)
    _lock(path).unlink(missing_ok=True)


def _read_all(root: Path) -> list[tuple[Path, ActiveRun]]:
    found = []
    for path in sorted((root / FOLDER).glob("[!.]*.json")):
        try:
            found.append((path, ActiveRun(**json.loads(path.read_text(encoding="utf-8")))))
        except (OSError, ValueError, TypeError):  # it ended meanwhile, or another version wrote it
            continue
    return found


def _lock(path: Path) -> Path:
    return path.with_suffix(".lock")


def _is_held(path: Path) -> bool:
    if not _lock(path).exists():
        return False
    from filelock import FileLock, Timeout

    try:
        with FileLock(_lock(path), timeout=0):
            return False
    except Timeout:
        return True
