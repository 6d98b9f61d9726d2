"""Reasons why one partition runs, and `accept` for changed code that makes the same bytes."""

from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.plan.plan import Plan
from data_catalog.plan.reasons import Reason, compare
from data_catalog.plan.steps import Step
from data_catalog.store.catalog import Entry, accept
from data_catalog.workspace import Workspace
from flows.ask.plan import find_step, open_plan


def explain_partition(key: str, workspace: Workspace) -> dict[str, Any]:
    """The state of one partition, what changed, and each input of its fingerprint, then and now."""
    plan = open_plan(workspace.settings, workspace.root)
    step = find_step(plan, key)
    return {
        "partition": step.key,
        "state": step.state,
        "changed": [reason._asdict() for reason in step.reasons],
        "inputs": [{**reason._asdict(), "same": not differs} for reason, differs in _inputs(plan, step)],
        "compared_with": _describe(plan, step.near) if step.near is not None else None,
        "now": plan.now(step),
        "note": step.note,
    }


def _inputs(plan: Plan, step: Step) -> list[tuple[Reason, bool]]:
    """All fingerprint inputs, and the code, beside those of the record that the plan compares with."""
    near = step.near
    found = list(compare(plan.made_from(near) if near is not None else {}, plan.now(step)))
    code = plan.code.digest(step.partition.stage).digest
    then = near.source_digest[:12] if near is not None else None
    return [*found, (Reason("code", then, code[:12]), near is None or not near.made_by(code))]


def _describe(plan: Plan, entry: Entry) -> dict[str, Any]:
    names = ("fingerprint", "digest", "created", "device", "seconds", "samples", "rejected", "bytes")
    return {name: getattr(entry, name) for name in names} | {"folder": str(plan.catalog.folder(entry))}


def accept_stage(stage: str, workspace: Workspace) -> dict[str, Any]:
    """Let the partitions of a stage count as made by its present code, as after a refactoring.

    For each partition this accepts the record that the plan compares with and the records made by the same code. A
    record of still older code, whose bytes may differ, stays as it is.
    """
    plan = open_plan(workspace.settings, workspace.root)
    if stage not in plan.by_stage:
        raise UserError(f"there is no stage '{stage}'", stages=", ".join(plan.by_stage))
    source = plan.source(stage).digest
    entries = _valid_entries(plan, stage)
    changes = {str(reason) for entry in entries if (reason := plan.code.change(stage, entry)) is not None}
    waiting = [entry for entry in entries if not entry.made_by(source)]
    for entry in waiting:
        accept(plan.store, entry.partition, plan.catalog.folder(entry).name, source)
    plan.code.remember(stage)
    return {
        "stage": stage,
        "accepted": len(waiting),
        "already_valid": len(entries) - len(waiting),
        "changed": sorted(changes),
        "source_digest": source,
    }


def _valid_entries(plan: Plan, stage: str) -> list[Entry]:
    """Return the records of the stage made by its last code, those of styles without a file included."""
    near = {step.key: step.near for step in plan.by_stage[stage] if step.near is not None}
    codes = {code for entry in near.values() for code in _codes(entry)}
    folder = plan.store.folder_of_all
    stored = [path for path, whole in plan.store.folders() if whole] if (folder / stage).is_dir() else []
    keys = sorted({path.parent.relative_to(folder).as_posix() for path in stored})
    found = []
    for key in keys:
        if key.partition("/")[0] == stage:
            valid = _codes(near[key]) if key in near else codes
            found += [entry for entry in plan.catalog.history(key) if _codes(entry) & valid]
    return found


def _codes(entry: Entry) -> set[str]:
    return {entry.source_digest, *entry.accepted.split()}
