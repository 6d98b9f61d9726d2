"""Trained students and their adapted styles in the store, and their datasets, by name or digest.

Kept apart from `snapshot`, which stages import: a change here must not count as a change of theirs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from data_catalog.config.errors import UserError
from data_catalog.config.places import looked_in
from data_catalog.products.keys import DATASET, STUDENT
from data_catalog.products.names import LATEST, read_names
from data_catalog.products.snapshot import MANIFEST, SAMPLES, Snapshot, open_snapshot
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.fingerprint import digest_files
from data_catalog.store.record import Record
from data_catalog.store.store import Store

ADAPT = "adapt"  # stage whose partitions, one a style, hold adapted weights
DELTA, ADAPTED = "delta.safetensors", "adapted.json"  # files of such a partition


@dataclass(frozen=True)
class AdaptedStyle:
    """Style that a student learned afterwards. `digest` is its partition's, `base` the student's."""

    style: str
    digest: str
    base: str
    folder: Path
    created: str
    prompt: str = ""  # the first that it was adapted with


def list_students(catalog: Catalog) -> list[Entry]:
    """List the students, the newest first; equal bytes are listed once, by the newest record."""
    newest: dict[str, Entry] = {}
    for entry in catalog.history(STUDENT):
        newest.setdefault(entry.digest, entry)
    return list(newest.values())


def student_entry(catalog: Catalog, student: str = LATEST) -> Entry:
    """Return the student of this name or digest (or its beginning), or the newest for `latest`."""
    students, names = list_students(catalog), read_names(catalog.store.root)
    digest = names.get(student, "" if student == LATEST else student)
    found = [entry for entry in students if entry.digest.startswith(digest)]
    if found and (student == LATEST or len(found) == 1):
        return found[0]
    known = ", ".join(entry.digest[:16] for entry in students) or "none"
    named = ", ".join(f"{name} ({names[name][:16]})" for name in sorted(names)) or "none"
    message = f"{len(found)} students start with '{student}'" if found else f"there is no student '{student}'"
    if student in names:
        message = f"the student named '{student}', {digest[:16]}, is no longer in the store"
    hint = "stillroom students lists them" if students else "stillroom distill"
    raise UserError(message, names=named, students=known, **looked_in(catalog.store.root, hint))


def learned_from(catalog: Catalog, student: Entry) -> Entry | None:
    """Return the dataset's partition that a student learned from; None if the store no longer holds it."""
    digest = catalog.read(student).fingerprint_inputs.get("inputs", {}).get(DATASET)
    return next((entry for entry in catalog.history(DATASET) if entry.digest == digest), None)


def open_dataset(root: Path, name: str = LATEST) -> Snapshot:
    """Open the latest dataset, or one by digest (or its beginning) or by the name of a student that learned from it."""
    names = read_names(root)
    try:
        return open_snapshot(root, _dataset_of(root, name) if name in names else None if name == LATEST else name)
    except UserError as error:
        if name != LATEST:
            error.fields["names"] = ", ".join(sorted(names)) or "none"
        raise


def recorded_digest(record: Record) -> str | None:
    """Return the `snapshot_digest` that a dataset's record promises, without hashing; None for another record."""
    files = {name: record.files[name].sha256 for name in (SAMPLES, MANIFEST) if name in record.files}
    return digest_files(files) if len(files) == 2 else None


def _dataset_of(root: Path, name: str) -> str:
    """Return the digest of the dataset that a named student learned from."""
    catalog = Catalog(Store(root))
    student = student_entry(catalog, name)
    entry = learned_from(catalog, student)
    digest = None if entry is None else recorded_digest(catalog.read(entry))
    if digest is None:
        message = f"the store no longer holds the dataset that the student '{name}' learned from"
        raise UserError(message, student=student.digest, hint="name a dataset: stillroom datasets lists them")
    return digest


def adapted_styles(catalog: Catalog) -> list[AdaptedStyle]:
    """List the adapted styles, the newest first."""
    folder = catalog.store.folder_of_all / ADAPT
    keys = [f"{ADAPT}/{path.name}" for path in sorted(folder.iterdir())] if folder.is_dir() else []
    found = [_describe(catalog, entry) for key in keys for entry in catalog.history(key)]
    return sorted(found, key=lambda each: each.created, reverse=True)


def adapted_style(catalog: Catalog, name: str, base: str | None = None) -> AdaptedStyle:
    """Find the newest adapted style of a name, or the one of a digest (or its beginning).

    base: digest of the student that it was adapted from; None for any.
    """
    known = adapted_styles(catalog)
    named = [each for each in known if name == each.style or each.digest.startswith(name)]
    found = [each for each in named if base in (None, each.base)]
    if not found:
        styles = ", ".join(sorted({each.style for each in known if base in (None, each.base)})) or "none"
        whose = "no student" if base is None else f"the student {base[:16]}"
        is_known = "was not adapted" if base else "was adapted"
        hint = f"stillroom adapt {name}"
        raise UserError(f"{whose} {is_known} to '{name}'", adapted_styles=styles, hint=hint)
    return found[0]


def _describe(catalog: Catalog, entry: Entry) -> AdaptedStyle:
    folder = catalog.folder(entry)
    document = json.loads((folder / ADAPTED).read_text(encoding="utf-8"))
    prompt = next(iter(document.get("prompts", [])), document["style"].replace("-", " "))
    return AdaptedStyle(document["style"], entry.digest, document["student"], folder, entry.created, prompt)
