"""Delete what nothing refers to any more, after saying what that is."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_catalog.gc import Findings, Waste, find_waste, remove_waste
from data_catalog.places import PROFILES, data_root
from data_catalog.plan import Plan
from data_catalog.settings import load_settings
from data_catalog.stage import PLACE
from data_catalog.store import Store
from flows.planning.plan import open_plan
from flows.running.mistakes import MISTAKES

log = logging.getLogger(__name__)


def look_for_waste(profile: str, overrides: list[str], last: int, keep: Sequence[str]) -> Findings:
    """What may go: nothing that a kept snapshot was made from, or that the plan of any profile counts on."""
    root = data_root()
    return find_waste(Store(root), _plans(profile, overrides, root), last, keep)


def _plans(profile: str, overrides: list[str], root: Path) -> list[Plan]:
    """The plan of these settings first, then those of the other profiles, as far as they can be made here."""
    plans = [open_plan(load_settings(profile, overrides), root)]
    for path in sorted(PROFILES.glob("*.yaml")):
        try:
            plans.append(open_plan(load_settings(path.stem), root))
        except MISTAKES as error:
            log.debug("the profile %s has no plan here: %s", path.stem, error)
    return plans


def delete(findings: Findings) -> list[Waste]:
    """Delete it. What changed since it was found, or is being worked on, stays."""
    return remove_waste(Store(data_root()), findings.items)


def describe(findings: Findings, deleted: Sequence[Waste] | None) -> dict[str, Any]:
    """As one document; `deleted` is None for a dry run."""
    names = ("kind", "name", "bytes", "why")
    return {
        "dry_run": deleted is None,
        "items": [
            {"folder": str(item.folder)} | {name: getattr(item, name) for name in names} for item in findings.items
        ],
        "bytes": sum(item.bytes for item in findings.items),
        "deleted": 0 if deleted is None else len(deleted),
        "deleted_bytes": sum(item.bytes for item in deleted or ()),
        "kept": {
            "datasets": [snapshot.digest for snapshot in findings.snapshots],
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
    """`edit/zombie` of `edit/zombie/0003`, `portraits` of `portraits/0003`."""
    return "/".join(part for part in key.split("/") if not PLACE.fullmatch(part))
