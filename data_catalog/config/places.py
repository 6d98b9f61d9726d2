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
    root = expand(given.removeprefix("file://") or "data").absolute()
    first = next((place for place in (root, *root.parents) if os.path.lexists(place)), root)
    if os.path.lexists(first) and not first.is_dir():
        hint = "set STILLROOM_DATA to another folder, or move this file away"
        raise UserError("a file stands where the data root is to be", path=first, hint=hint)
    return root


def looked_in(root: Path, hint: str) -> dict[str, str]:
    """Return fields and hint of a message about something that is not in the data root: which it is, and why.

    hint: the next step where the data root is there; else it is likely that another one is meant.
    """
    if root.is_dir():
        return {"root": str(root), "hint": hint}
    why = "of STILLROOM_DATA" if os.environ.get("STILLROOM_DATA") else "below the current folder"
    hint = f"export STILLROOM_DATA=/path/to/data, the data root of your project; here: {hint}"
    return {"root": f"{root}, {why}, is not there", "hint": hint}


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
    given = expand(os.fsdecode(path.encode()))
    here = given.absolute()
    return here if given.is_absolute() or here.exists() else PROJECT / given


def expand(path: str | Path) -> Path:
    """Return the path with ~ as the home. Raises UserError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        hint = "set HOME, or write the whole path"
        raise UserError("a path begins with ~, and there is no such home", path=path, cause=error, hint=hint) from None


def shown_path(path: Path) -> str:
    """Return the path for a message: relative to the project or the current folder if it is below one."""
    for base in (PROJECT, *_current()):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)


def _current() -> list[Path]:
    """Return the current folder, if it is there."""
    try:
        return [Path.cwd()]
    except FileNotFoundError:
        return []
