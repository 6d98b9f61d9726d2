"""Retry of the last run: its failed partitions and those that waited for them, nothing else."""

from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import data_root
from flows.run.engine import run_here
from flows.run.history import RunNote, last_runs
from flows.track.labels import Labels


def retry(profile: str, overrides: list[str], labels: Labels | None = None) -> dict[str, Any]:
    """Repeat the failed partitions of the profile's last failed run, with its settings and then `overrides`.

    Partitions that became outdated for other reasons are left to the next `build`.
    """
    note = last_failed(profile)
    parameters = dict(note.parameters)
    if note.flow == "build-dataset":  # the other flows are one partition each
        parameters["only"] = sorted([*note.failed, *note.blocked])
    outcome = run_here(note.flow, profile, [*note.overrides, *overrides], labels, **parameters)
    return {"flow": note.flow, "retried": sorted(note.failed), **outcome}


def last_failed(profile: str) -> RunNote:
    """The note of the last run in which partitions failed."""
    root = data_root()
    notes = [note for note in last_runs(root) if note.profile == profile and note.failed]
    if not notes:
        message = f"no partition failed in the last runs of the profile '{profile}'"
        raise UserError(message, root=root, hint="stillroom build")
    return max(notes, key=lambda note: note.ended)
