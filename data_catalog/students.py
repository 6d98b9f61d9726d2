"""Trained students in the store, by digest, and the styles that they were adapted to, by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from data_catalog.catalog import Catalog, Entry
from data_catalog.errors import UserError

STUDENT = "distill/all"  # the partition that holds them
ADAPTED = "adapt"  # the stage whose partitions, one a style, hold what adapting left
DOCUMENT = "adapted.json"


@dataclass(frozen=True)
class AdaptedStyle:
    """A style that a student learned afterwards. `digest` is its partition's, `base` that of the student."""

    style: str
    digest: str
    base: str
    folder: Path
    created: str


def student_entry(catalog: Catalog, digest: str = "latest") -> Entry:
    """The student with this digest (or its beginning), or the newest."""
    students = catalog.history(STUDENT)
    found = [entry for entry in students if digest == "latest" or entry.digest.startswith(digest)]
    if not found:
        known = ", ".join(entry.digest[:16] for entry in students) or "none"
        raise UserError(f"there is no student '{digest}'", students=known, hint="stillroom distill")
    return found[0]


def adapted_styles(catalog: Catalog) -> list[AdaptedStyle]:
    """All of them, the newest first."""
    folder = catalog.store.folder_of_all / ADAPTED
    keys = [f"{ADAPTED}/{path.name}" for path in sorted(folder.iterdir())] if folder.is_dir() else []
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
    document = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    return AdaptedStyle(document["style"], entry.digest, document["student"], folder, entry.created)
