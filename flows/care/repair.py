"""Repair: make exactly the damaged partitions again, restore damaged snapshots, rebuild the index from the records."""

import time
from dataclasses import asdict
from typing import Any

from data_catalog.care.mend import damaged_places, mend_indexes, mend_snapshots, rebuild_index, remove_unfinished
from data_catalog.care.verify import note_damage, verify
from data_catalog.workspace import Workspace
from flows.run.products import DATASET
from flows.run.run import FlowRun, open_run


def repair(profile: str = "demo", overrides: list[str] | None = None) -> dict[str, Any]:
    """Hash everything, and make damaged partitions of these settings again.

    Partitions of other settings cannot be made with these: they are listed as `left`, with their folders.
    """
    workspace, started = Workspace.open(profile, overrides), time.monotonic()
    root = workspace.root
    seen = verify(root)
    whole = mend_indexes(seen.damaged)
    damaged = verify(root).damaged if whole else seen.damaged
    note_damage(root, damaged)  # from here on the plan does not count damaged partitions as made
    if seen.damaged:
        rebuild_index(root)
    digests: dict[str, tuple[str | None, str]] = {}
    places = damaged_places(root, damaged)
    if places:
        with open_run("repair", workspace, only=places) as run:
            digests = make_again(run)
    remove_unfinished(root, damaged)
    mended = mend_snapshots(root, DATASET, damaged)
    remaining = verify(root).damaged if seen.damaged else []
    note_damage(root, remaining)
    return {
        "checked": seen.records,
        "damaged": [asdict(damage) for damage in seen.damaged],
        "repaired": sorted({*digests, *whole}),
        "snapshots": mended,
        "changed": sorted(key for key, (then, now) in digests.items() if then not in (None, now)),
        "left": [asdict(damage) for damage in remaining],
        "seconds": round(time.monotonic() - started, 2),
    }


def make_again(run: FlowRun) -> dict[str, tuple[str | None, str]]:
    """Make the run's partitions, stage by stage. Returns the digest before (if known) and after, by key.

    A stage without damage is only judged, since its digests are inputs of later stages.
    """
    assert run.only is not None
    stages = {place.partition("/")[0] for place in run.only}
    before = {key: entry_digest(run, place) for place in run.only for key in [place.rpartition("/")[0]]}
    for stage in run.plan.stages:
        if stage.name in stages:
            run.stage(stage.name)
        else:
            run.plan.resolve(stage.name)
    run.check()
    done = [step for step in run.plan.steps.values() if step.state == "done" and step.entry]
    run.conclude(repaired=len(done))
    return {step.key: (before.get(step.key), step.entry.digest) for step in done if step.entry}


def entry_digest(run: FlowRun, place: str) -> str | None:
    """Return the digest of a damaged folder from the index."""
    key, _, name = place.rpartition("/")
    entry = run.plan.catalog.entries.get(key, {}).get(name)
    return entry.digest if entry else None
