"""The last run of each flow and the run behind each product, as small files below the data root.

Nothing depends on it: the records alone tell what is finished.
"""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.store import FOLDER_CHARS


@dataclass
class RunNote:
    """Note of a flow's last run. `outcome` is the JSON that the command line prints.

    `failed` maps a partition to the first line of its message, `blocked` lists those that waited for one.
    """

    flow: str
    profile: str
    state: str  # completed | failed | cancelled (by a signal, Ctrl-C or Prefect) | killed
    seconds: float
    stage: str | None = None  # where it ended, unless it completed
    stage_seconds: dict[str, float] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)  # of the flow, beside profile and overrides
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    ended: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def note_run(root: Path, note: RunNote) -> None:
    """Remember a run; it replaces the flow's last one."""
    write_atomically(root / "runs" / f"{note.flow}.json", json.dumps(asdict(note), indent=1).encode())


def note_maker(root: Path, digest: str, run_id: str) -> None:
    """Remember the MLflow run that made a dataset or a student."""
    write_atomically(_maker(root, digest), json.dumps({"mlflow_run_id": run_id}).encode())


def maker_of(root: Path, digest: str) -> str | None:
    """Return the MLflow run that made a product; None where it was not noted."""
    try:
        run_id: str = json.loads(_maker(root, digest).read_bytes())["mlflow_run_id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a note only: made by an older version, or lost
    return run_id


def _maker(root: Path, digest: str) -> Path:
    return root / "runs" / "made" / f"{digest[:FOLDER_CHARS]}.json"


def last_runs(root: Path) -> list[RunNote]:
    """The last run of every flow that ever ran here, by name."""
    return [RunNote(**json.loads(path.read_text())) for path in sorted((root / "runs").glob("*.json"))]


def last_run(root: Path, flow: str) -> RunNote:
    """The last run of one flow."""
    for note in last_runs(root):
        if note.flow == flow:
            return note
    raise UserError(f"the flow {flow} has not run on this data root", root=root, hint=f"stillroom run {flow}")
