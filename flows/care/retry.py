"""Retry of the last run: its failed partitions and those that waited for them, nothing else."""

from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import data_root
from data_catalog.config.profiles import load_settings
from flows.ask.plan import open_plan
from flows.run.engine import run_here
from flows.run.history import RunNote, last_runs


def retry(profile: str, overrides: list[str]) -> dict[str, Any]:
    """Repeat the failed partitions of the profile's last failed run, with its settings and then `overrides`.

    Partitions that the overrides outdate are made, too. Those outdated for other reasons are left to the next `build`.
    """
    note = last_failed(profile)
    parameters = dict(note.parameters)
    if note.flow == "build-dataset":  # the other flows are one partition each
        parameters["only"] = sorted({*note.failed, *note.blocked, *outdated_by(overrides, note)})
    outcome = run_here(note.flow, profile, [*note.overrides, *overrides], **parameters)
    return {"flow": note.flow, "retried": sorted(note.failed), **outcome}


def outdated_by(overrides: list[str], note: RunNote) -> set[str]:
    """Return the partitions that are made with the settings of a run, and are not with the overrides."""
    if not overrides:
        return set()
    given = (note.overrides, [*note.overrides, *overrides])
    before, now = (open_plan(load_settings(note.profile, each), data_root()).steps for each in given)
    return {key for key, step in now.items() if not step.made and (key not in before or before[key].made)}


def last_failed(profile: str) -> RunNote:
    """The note of the last run in which partitions failed."""
    root = data_root()
    notes = [note for note in last_runs(root) if note.profile == profile and note.failed]
    if not notes:
        message = f"no partition failed in the last runs of the profile '{profile}'"
        raise UserError(message, root=root, hint="stillroom build")
    return max(notes, key=lambda note: note.ended)
