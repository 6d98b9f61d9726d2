"""Students and datasets as documents: settings, measures, and their uses. Imports no engine."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from data_catalog.config.settings import Settings
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.names import check_name, give_name, names_of, read_exports
from data_catalog.products.snapshot import MANIFEST, Snapshot, list_snapshots
from data_catalog.products.students import adapted_styles, list_students, recorded_digest, student_entry
from data_catalog.store.catalog import Entry
from data_catalog.workspace import Workspace

Document = dict[str, Any]


class Shelf:
    """Students and datasets of a data root, and the settings to compare them with."""

    def __init__(self, workspace: Workspace) -> None:
        self.root, self.settings, self.catalog = workspace.root, workspace.settings, workspace.catalog
        self.students = list_students(self.catalog)
        self.records = {entry.digest: self.catalog.read(entry) for entry in self.students}

    @cached_property
    def dataset_entries(self) -> dict[str, Entry]:
        """The newest partition of each dataset, by the digest of its snapshot."""
        entries: dict[str, Entry] = {}
        for entry in self.catalog.history(DATASET):
            digest = recorded_digest(self.catalog.read(entry))
            if digest is not None:
                entries.setdefault(digest, entry)
        return entries

    @cached_property
    def snapshots(self) -> dict[str, str]:
        """Digest of the snapshot of each dataset's partition, by the partition's digest."""
        records = [self.catalog.read(entry) for entry in self.catalog.history(DATASET)]
        return {record.digest: digest for record in records if (digest := recorded_digest(record)) is not None}

    def dataset_of(self, student: str) -> str | None:
        """Return the digest of the snapshot that a student learned from; None where the store no longer holds it."""
        inputs = self.records[student].fingerprint_inputs.get("inputs", {})
        return self.snapshots.get(inputs.get(DATASET, ""))

    def imported_from(self, student: Entry) -> str | None:
        """Return the name of the file that a student was imported from; None for one of ours."""
        if "imported" not in self.records[student.digest].fingerprint_inputs.get("settings", {}):
            return None
        from tasks.distill import TRAINING

        training = json.loads((self.catalog.folder(student) / TRAINING).read_text(encoding="utf-8"))
        name: str = training["imported"]["file"]
        return name

    def dataset_settings(self, digest: str, manifest: Document) -> Document:
        """Return a dataset's settings, by section: from its partition's record, else from the manifest."""
        entry = self.dataset_entries.get(digest)
        if entry is None:
            where = {name: manifest[name] for name in ("profile", "world") if name in manifest}
            return where | manifest.get("settings", {})
        recorded = self.catalog.read(entry).fingerprint_inputs["settings"]
        return {"profile": recorded["profile"], **recorded["recipe"], "dataset": _fields_of("dataset", recorded)}

    def student_settings(self, student: str) -> Document:
        """Return the settings that a student was trained with, and those of its dataset."""
        recorded = self.records[student].fingerprint_inputs.get("settings", {})
        dataset = self.dataset_of(student)
        recipe = {} if dataset is None else self.dataset_settings(dataset, {})
        return recipe | {"distill": _fields_of("distill", recorded)}


def _fields_of(section: str, recorded: Document) -> Document:
    """Return the recorded settings that belong to the section."""
    known = Settings().model_dump()[section]
    return {name: value for name, value in recorded.items() if name in known}


def recorded_settings(workspace: Workspace, pins: Mapping[str, str]) -> Document:
    """Return the sections of settings that a pinned student, else a pinned dataset, was made with, from its record."""
    shelf = Shelf(workspace)
    if STUDENT in pins:
        return shelf.student_settings(pins[STUDENT])
    snapshot = shelf.snapshots.get(pins.get(DATASET, ""))
    return {} if snapshot is None else shelf.dataset_settings(snapshot, {})


def describe_students(workspace: Workspace) -> Document:
    """All students, the newest first."""
    from flows.track.model_versions import model_versions
    from tasks.evaluation.table import STUDENT as METHOD
    from tasks.student.export import find_evaluation

    shelf = Shelf(workspace)
    adapted, exports = adapted_styles(shelf.catalog), read_exports(shelf.root)
    versions = model_versions(shelf.root, shelf.settings)
    rows = []
    for entry in shelf.students:
        table, imported = find_evaluation(shelf.catalog, entry.digest), shelf.imported_from(entry)
        known = [] if imported else compare_with_profile(shelf.student_settings(entry.digest), shelf.settings)
        rows.append({
            "digest": entry.digest,
            "created": entry.created,
            "names": names_of(shelf.root, entry.digest),
            "dataset": shelf.dataset_of(entry.digest),
            "imported": imported,
            "settings": known,
            "metrics": shelf.records[entry.digest].metrics,
            "evaluation": next((row for row in table if row["method"] == METHOD), None),
            "adapted_styles": sorted({each.style for each in adapted if each.base == entry.digest}),
            "model_versions": [
                {"name": each.name, "version": each.version, "aliases": list(each.aliases)}
                for each in versions
                if each.student == entry.digest
            ],
            "exports": exports.get(entry.digest, []),
        })  # fmt: skip
    return {"profile": workspace.profile, "students": rows}


def describe_datasets(workspace: Workspace) -> Document:
    """All datasets, the newest first."""
    shelf = Shelf(workspace)
    latest = shelf.root / "datasets" / "latest"
    newest = latest.read_text(encoding="utf-8").strip() if latest.is_file() else None
    rows = [_dataset_row(shelf, snapshot, newest) for snapshot in reversed(list_snapshots(shelf.root))]
    return {"profile": workspace.profile, "datasets": rows}


def _dataset_row(shelf: Shelf, snapshot: Snapshot, newest: str | None) -> Document:
    manifest = snapshot.manifest
    students = [entry.digest for entry in shelf.students if shelf.dataset_of(entry.digest) == snapshot.digest]
    made = (snapshot.folder / MANIFEST).stat().st_mtime
    return {
        "digest": snapshot.digest,
        "created": datetime.fromtimestamp(made, UTC).isoformat(timespec="seconds"),
        "names": sorted(name for digest in students for name in names_of(shelf.root, digest)),
        "latest": snapshot.digest == newest,
        "folder": str(snapshot.folder),
        "settings": compare_with_profile(shelf.dataset_settings(snapshot.digest, manifest), shelf.settings),
        "samples": manifest.get("samples"),
        "styles": sorted(manifest.get("styles", {})),
        "students": students,
    }


def compare_with_profile(told: Document, settings: Settings) -> list[Document]:
    """List settings that differ from `settings`, in their order; a setting missing in `told` has its default."""
    from tasks.dataset import recipe
    from tasks.distill import chosen_settings

    default = Settings().model_dump(mode="json")
    given = settings.model_dump(mode="json") | recipe(settings) | {"distill": chosen_settings(settings)}
    rows = []
    for section in (name for name in default if name in told):
        own = told[section]
        if not isinstance(own, dict):
            rows += [] if own == given[section] else [{"setting": section, "value": own, "profile": given[section]}]
            continue
        mine, other = (default[section] | side for side in (own, given[section]))
        rows += [
            {"setting": f"{section}.{name}", "value": mine[name], "profile": other.get(name)}
            for name in mine
            if mine[name] != other.get(name)
        ]
    return rows


def promote(student: str, name: str, workspace: Workspace) -> Document:
    """Give a student a name, also as an alias of its registered model in MLflow."""
    from flows.track.model_versions import move_alias

    check_name(name)
    digest = student_entry(workspace.catalog, student).digest
    before = give_name(workspace.root, name, digest)
    told = move_alias(workspace.root, workspace.settings, name, digest, before)
    return {"name": name, "student": digest, "before": before, "mlflow": told}
