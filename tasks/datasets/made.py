"""Dataset and student made by given settings: the newest whose records name exactly these settings.

Style files, code and weights may have changed since; `stillroom plan` says so. Settings of another profile, world or
`--set` make another dataset, which never counts as made by these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import looked_in
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.plan.reasons import differences
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.snapshot import Snapshot, open_snapshot, snapshot_digest
from data_catalog.products.students import learned_from
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.fingerprint import canonical_json
from data_catalog.store.stage import Partition
from data_catalog.workspace import Workspace
from tasks import dataset, distill

DIFFERENCES_SHOWN = 4
SHORT = 16  # characters of a digest in a message

Chosen = dict[str, Any]


def dataset_of(catalog: Catalog, settings: Settings) -> Entry:
    """Find the newest dataset that these settings made.

    Raises UserError, with the nearest and its difference, where there is none.
    """
    wanted = dataset_settings(settings)
    return _newest(catalog, DATASET, wanted, lambda entry: made_dataset_with(catalog, entry), "build", "--dataset")


def snapshot_of(workspace: Workspace) -> Snapshot:
    """Find the snapshot of the newest dataset that these settings made."""
    catalog = workspace.catalog
    return open_snapshot(workspace.root, snapshot_digest(catalog.folder(dataset_of(catalog, workspace.settings))))


def student_of(catalog: Catalog, settings: Settings) -> Entry:
    """Find the newest student that these settings made, from a dataset that they made.

    Raises UserError, with the nearest and its difference, where there is none.
    """
    wanted = student_settings(settings)
    return _newest(catalog, STUDENT, wanted, lambda entry: made_student_with(catalog, entry), "distill", "--student")


def is_student_of(catalog: Catalog, entry: Entry, settings: Settings) -> bool:
    """Whether a student was made by these settings."""
    return made_student_with(catalog, entry) == student_settings(settings)


def dataset_settings(settings: Settings) -> Chosen:
    """List the settings that decide on a dataset, by dotted stage and key."""
    return _plain(dataset.chosen_settings(settings))


def is_own(settings: Settings) -> bool:
    """Whether a profile without any `--set` would make the same dataset."""
    return dataset_settings(settings) == dataset_settings(load_settings(settings.profile))


def student_settings(settings: Settings) -> Chosen:
    """List the settings that decide on a student, those of its dataset included."""
    return dataset_settings(settings) | {"distill": _plain(distill.reads(settings, Partition("distill")))}


def made_dataset_with(catalog: Catalog, entry: Entry) -> Chosen:
    """Read from a dataset's record what it was made with, as `dataset_settings` lists it."""
    made: Chosen = dict(catalog.read(entry).fingerprint_inputs.get("settings", {}))
    made.pop("style_licences", None)  # of the style files, not of the settings
    return made


def made_student_with(catalog: Catalog, entry: Entry) -> Chosen:
    """Read from a student's record what it was made with, as `student_settings` lists it."""
    dataset_entry = learned_from(catalog, entry)
    with_dataset = made_dataset_with(catalog, dataset_entry) if dataset_entry is not None else {}
    return with_dataset | {"distill": catalog.read(entry).fingerprint_inputs.get("settings", {})}


def told_differences(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List the settings that differ, such as `edit.steps: 3 there, 5 here`."""
    found = []
    for reason in differences({"settings": made}, {"settings": wanted}):
        name = reason.what.removeprefix("setting ").removeprefix("recipe.")
        there, here = (value if value is not None else "none" for value in (reason.then, reason.now))
        found.append(f"{name}: {there} there, {here} here")
    return sorted(found, key=lambda text: not text.startswith("profile: "))  # another profile explains the rest


def _newest(
    catalog: Catalog, key: str, wanted: Chosen, made_with: Callable[[Entry], Chosen], command: str, option: str
) -> Entry:
    what = "dataset" if key == DATASET else "student"
    others: list[tuple[list[str], Entry]] = []
    for entry in catalog.history(key):
        differs = told_differences(made_with(entry), wanted)
        if not differs:
            return entry
        others.append((differs, entry))
    if not others:
        raise UserError(f"there is no {what} yet", **looked_in(catalog.store.root, f"stillroom {command}"))
    differs, nearest = min(others, key=lambda each: len(each[0]))
    digest = snapshot_digest(catalog.folder(nearest)) if key == DATASET else nearest.digest
    more = f"; and {len(differs) - DIFFERENCES_SHOWN} more" if len(differs) > DIFFERENCES_SHOWN else ""
    raise UserError(
        f"there is no {what} of these settings yet",
        nearest=f"{digest[:SHORT]} of {nearest.created}",
        differs="; ".join(differs[:DIFFERENCES_SHOWN]) + more,
        hint=f"stillroom {command}, with the same --set; or name one: {option} {digest[:8]}",
    )


def _plain(value: Mapping[str, Any]) -> Chosen:
    """Return the settings as a record stores them: tuples become lists."""
    plain: Chosen = json.loads(canonical_json(dict(value)))
    return plain
