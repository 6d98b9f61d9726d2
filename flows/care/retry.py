"""Retry of the last run: its failed partitions, what they need, and those that waited for them."""

from collections.abc import Sequence
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import data_root
from data_catalog.config.profiles import load_settings
from data_catalog.plan.plan import Plan
from flows.ask.plan import open_plan
from flows.run.engine import run_here
from flows.run.history import RunNote, last_runs
from flows.track.labels import labelled


def retry(
    profile: str,
    overrides: list[str],
    name: str | None = None,
    note: str | None = None,
    tags: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Repeat the failed partitions of the profile's last failed run, with its settings and then `overrides`.

    What they need is made, too, and what the overrides outdate. All else that is outdated is left to the next `build`.
    """
    last = last_failed(profile)
    parameters = dict(last.parameters)
    if last.flow == "build-dataset":  # the other flows are one partition each
        parameters["only"] = sorted(find_partitions(last, overrides))
    with labelled(name, note, tags):  # not every flow has them as parameters
        outcome = run_here(last.flow, profile, [*last.overrides, *overrides], **parameters)
    return {"flow": last.flow, "retried": sorted(last.failed), **outcome}


def find_partitions(note: RunNote, overrides: list[str]) -> set[str]:
    """List what failed or waited in a run, what the failed need, and what was made with its settings but not these."""
    plan, again = plan_of(note, overrides), {*note.failed}
    for stage in reversed(plan.stages):
        failed = [step for step in plan.by_stage[stage.name] if step.key in again]
        needed = [up for step in failed for need in stage.needs for up in plan.upstream(step, need.stage)]
        again |= {up.key for up in needed if not up.made}
    if overrides:
        before = plan_of(note).steps
        again |= {key for key, step in plan.steps.items() if not step.made and (key not in before or before[key].made)}
    return {*again, *note.blocked}


def plan_of(note: RunNote, overrides: Sequence[str] = ()) -> Plan:
    """Return the plan of a run as it would be now."""
    return open_plan(load_settings(note.profile, [*note.overrides, *overrides]), data_root())


def last_failed(profile: str) -> RunNote:
    """The note of the last run in which partitions failed."""
    root = data_root()
    notes = [note for note in last_runs(root) if note.profile == profile and note.failed]
    if not notes:
        message = f"no partition failed in the last runs of the profile '{profile}'"
        raise UserError(message, root=root, hint="stillroom build")
    return max(notes, key=lambda note: note.ended)
