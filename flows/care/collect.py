"""Deletion of unreferenced folders, after listing them."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_catalog.care.gc import Findings, Waste, find_waste
from data_catalog.config.places import PROFILES
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.plan.plan import Plan
from data_catalog.store.stage import PLACE
from data_catalog.workspace import Workspace
from flows.ask.plan import open_plan
from flows.mistakes import MISTAKES
from flows.track.model_versions import model_versions

log = logging.getLogger(__name__)


def look_for_waste(workspace: Workspace, last: int, keep: Sequence[str]) -> Findings:
    """Find what may go: nothing in use, nothing behind a kept snapshot, nothing in a profile's plan."""
    uses = _registered(workspace.root, workspace.settings)
    return find_waste(workspace.store, _plans(workspace), last, keep, uses)


def _registered(root: Path, settings: Settings) -> dict[str, list[str]]:
    """Return the uses of students in MLflow, by digest: the last version of each registered model that holds one."""
    newest = {(each.student, each.name): each.version for each in model_versions(root, settings)}
    uses: dict[str, list[str]] = {}
    for (student, name), version in newest.items():
        uses.setdefault(student, []).append(f"is registered as {name} version {version}")
    return uses


def _plans(workspace: Workspace) -> list[Plan]:
    """The plan of these settings first, then those of the other profiles, as far as they can be made here."""
    plans = [open_plan(workspace.settings, workspace.root)]
    for path in sorted(PROFILES.glob("*.yaml")):
        try:
            plans.append(open_plan(load_settings(path.stem), workspace.root))
        except MISTAKES as error:
            log.debug("the profile %s has no plan here: %s", path.stem, error)
    return plans


def both(earlier: Findings, now: Findings) -> Findings:
    """Return the findings that are in both: something may have come into use meanwhile."""
    return replace(now, items=[item for item in now.items if item in earlier.items])


def describe(findings: Findings, deleted: Sequence[Waste] | None) -> dict[str, Any]:
    """Return one document; `deleted` is None for a dry run."""
    gone = {item.folder for item in deleted or ()}
    items = [
        {
            "kind": item.kind,
            "name": item.name,
            "folder": str(item.folder),
            "bytes": item.bytes,
            "why": item.why,
            "deleted": item.folder in gone,
        }
        for item in findings.items
    ]
    return {
        "dry_run": deleted is None,
        "items": items,
        "bytes": sum(item.bytes for item in findings.items),
        "deleted": 0 if deleted is None else len(deleted),
        "deleted_bytes": sum(item.bytes for item in deleted or ()),
        "kept": {
            "datasets": [snapshot.digest for snapshot in findings.snapshots],
            "why": findings.why,
            "partitions": findings.partitions,
            "bytes": findings.bytes,
        },
    }


def grouped(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of a document, one row a stage and style."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for item in items:
        where = item["name"] if item["kind"] == "dataset" else _group(item["name"])
        empty = {"what": item["kind"], "where": where, "folders": 0, "MB": 0.0, "why": item["why"]}
        row = rows.setdefault((item["kind"], where), empty)
        row["folders"] += 1
        row["MB"] += item["bytes"] / 1e6
    return [row for _, row in sorted(rows.items())]


def _group(key: str) -> str:
    """Return a key's stage and style: `edit/zombie` for `edit/zombie/0003`, `portraits` for `portraits/0003`."""
    return "/".join(part for part in key.split("/") if not PLACE.fullmatch(part))
