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


def read_argument(text: str) -> str:
    """Return an argument of the command line as UTF-8, which a locale such as C reads otherwise."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        if text.isprintable():  # given by a program, not by a command line of that locale
            return text
        shown = os.fsencode(text).decode(errors="backslashreplace")
        raise UserError(
            "an argument is not UTF-8", found=shown, hint="rename the file or folder that it names"
        ) from None


def find_path(path: str) -> Path:
    """Return the path of a setting: absolute, below the current folder, or else below the project."""
    given = Path(os.fsdecode(path.encode())).expanduser()
    here = given.absolute()
    return here if given.is_absolute() or here.exists() else PROJECT / given


def shown_path(path: Path) -> str:
    """Return the path for a message: relative to the project or the current folder if it is below one."""
    for base in (PROJECT, Path.cwd()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
