"""Trained students in the store, by digest."""

from __future__ import annotations

from data_catalog.catalog import Catalog, Entry
from data_catalog.errors import UserError

STUDENT = "distill/all"  # the partition that holds them


def student_entry(catalog: Catalog, digest: str = "latest") -> Entry:
    """The student with this digest (or its beginning), or the newest."""
    students = catalog.history(STUDENT)
    found = [entry for entry in students if digest == "latest" or entry.digest.startswith(digest)]
    if not found:
        known = ", ".join(entry.digest[:16] for entry in students) or "none"
        raise UserError(f"there is no student '{digest}'", students=known, hint="stillroom distill")
    return found[0]
