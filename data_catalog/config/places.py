"""Paths of the project folder, the profiles and the data root."""

from __future__ import annotations

import os
from pathlib import Path

from data_catalog.config.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]
PROFILES = PROJECT / "configs" / "profiles"


def data_root() -> Path:
    """Return the folder of all results: STILLROOM_DATA, or ./data."""
    given = os.environ.get("STILLROOM_DATA", "")
    if "://" in given and not given.startswith("file://"):
        raise UserError(
            "the data root must be a folder of this machine",
            found=given,
            hint="mount the bucket, or set STILLROOM_DATA to a local folder",
        )
    return Path(given.removeprefix("file://") or "data").expanduser().absolute()


def find_path(path: str) -> Path:
    """Return the path of a setting: absolute, below the current folder, or else below the project."""
    given = Path(path).expanduser()
    here = given.absolute()
    return here if given.is_absolute() or here.exists() else PROJECT / given


def shown_path(path: Path) -> str:
    """Return the path for a message: relative to the project or the current folder if it is below one."""
    for base in (PROJECT, Path.cwd()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
