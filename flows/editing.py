"""`stillroom edit`: the newest student on a portrait of the user's."""

import time
from pathlib import Path
from typing import Any

from data_catalog.catalog import Catalog
from data_catalog.places import data_root
from data_catalog.settings import load_settings
from data_catalog.store import Store
from flows.products import student_entry
from tasks.apply import edit_head, read_portrait, write_views
from tasks.student_files import load_student


def edit_portrait(
    image: Path,
    prompt: str | None,
    reference: Path | None,
    out: Path,
    views: int,
    profile: str,
    overrides: list[str],
) -> dict[str, Any]:
    """Edit a portrait and write its pictures. `seconds` is the edit alone, without loading the networks."""
    settings = load_settings(profile, overrides)
    catalog = Catalog(Store(data_root()))
    entry = student_entry(catalog)
    portrait = read_portrait(image, settings)
    picture = read_portrait(reference, settings).rgb if reference else None
    student = load_student(catalog.folder(entry), settings.run.device)
    edit_head(student, portrait.rgb, prompt, picture, settings)  # the first pass loads the prompt's encoder
    started = time.perf_counter()
    head = edit_head(student, portrait.rgb, prompt, picture, settings)
    seconds = time.perf_counter() - started
    files = write_views(head, portrait.camera, out, views)
    return {
        "files": [str(path) for path in files],
        "seconds": round(seconds, 4),
        "student": entry.digest,
        "camera_source": portrait.camera_source,
    }
