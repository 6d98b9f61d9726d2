"""Styles that a student knows, each with a prompt to try."""

from __future__ import annotations

import json

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.config.styles import read_style, style_path
from data_catalog.products.snapshot import SAMPLES
from data_catalog.products.students import AdaptedStyle, learned_from
from data_catalog.store.catalog import Catalog, Entry
from tasks.distill import TRAINING


def known_prompts(
    catalog: Catalog, student: Entry, settings: Settings, adapted: AdaptedStyle | None = None
) -> dict[str, str]:
    """Return a prompt for each style that a student learned, by style; an adapted style comes first.

    The prompt is the first of the style's file, else of the dataset, else the style's name. Empty for a student that
    was imported: its file does not say.
    """
    path = catalog.folder(student) / TRAINING
    styles = json.loads(path.read_text(encoding="utf-8")).get("styles", []) if path.is_file() else []
    given = {} if adapted is None else {adapted.style: adapted.prompt}
    written = {style: _read_prompt(style, settings) for style in styles}
    learned = {} if all(written.values()) else _learned_prompts(catalog, student)
    return given | {style: text or learned.get(style, style.replace("-", " ")) for style, text in written.items()}


def _read_prompt(style: str, settings: Settings) -> str | None:
    try:
        return read_style(style_path(settings, style)).seed_prompt
    except (KeyError, UserError):  # removed, renamed or being rewritten since: the student knows the style all the same
        return None


def _learned_prompts(catalog: Catalog, student: Entry) -> dict[str, str]:
    """Return the first prompt of each style of the dataset; empty where the store no longer holds it."""
    import pyarrow.parquet as pq

    dataset = learned_from(catalog, student)
    path = None if dataset is None else catalog.folder(dataset) / SAMPLES
    if path is None or not path.is_file():
        return {}
    rows = pq.read_table(path, columns=["style", "prompt_number", "prompt"]).to_pylist()
    return {row["style"]: row["prompt"] for row in sorted(rows, key=lambda row: -row["prompt_number"])}
