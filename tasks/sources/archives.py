"""Zips of portraits: their members by name, and what a file is that is none."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from data_catalog.config.disk_errors import disk_mistake
from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.samples.formats import SUFFIXES as PICTURES
from tasks.sources.memory import remembered

UTF8_NAMES = 0x800  # flag of a member whose name is UTF-8
UNPACK = "unpack it, and name the folder"
AGAIN = "download or copy it again"

# Beginnings of files that are given as a source, what they are, and the next step.
KINDS = (
    (b"PK\x03\x04", "starts as a zip, but its end is missing", AGAIN),
    (b"PK\x05\x06", "is a damaged zip", AGAIN),
    (b"\x1f\x8b", "is a gzip file, no zip", UNPACK),
    (b"BZh", "is a bzip2 file, no zip", UNPACK),
    (b"\xfd7zXZ", "is an xz file, no zip", UNPACK),
    (b"\x28\xb5\x2f\xfd", "is a Zstandard file, no zip", UNPACK),
    (b"7z\xbc\xaf", "is a 7z archive, no zip", UNPACK),
    (b"Rar!", "is a RAR archive, no zip", UNPACK),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the file itself", "git lfs pull"),
    (b"\x89HDF", "is an HDF5 file, no zip", "write its pictures into a folder"),
)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open the zip once per process: reading a directory of 100,000 names takes half a second.

    Raises UserError where the file is none.
    """
    # A forked process shares the position in the file with its parent and needs its own.
    return remembered(f"archive {os.getpid()}", path, lambda: _open(path))


def list_members(path: Path) -> list[tuple[str, str]]:
    """Return the files of a zip as (name, member), in the archive's order; names have "/" and no leading one."""
    found = []
    for info in open_archive(path).infolist():
        name = _decode(info).replace("\\", "/")
        if not name.endswith("/"):
            found.append(("/".join(part for part in name.split("/") if part not in ("", ".", "..")), info.filename))
    return found


def _decode(info: zipfile.ZipInfo) -> str:
    """Name of a member. macOS writes UTF-8 without the flag that says so, which zipfile reads as cp437."""
    if not info.flag_bits & UTF8_NAMES:
        try:
            return info.orig_filename.encode("cp437").decode()
        except UnicodeError:
            pass
    return info.filename


def _open(path: Path) -> zipfile.ZipFile:
    try:
        if zipfile.is_zipfile(path):
            return zipfile.ZipFile(path)
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        step = getattr(disk_mistake(error), "hint", None)
        raise UserError(f"portraits.source: {shown_path(path)} cannot be read", cause=error, hint=step) from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(f"portraits.source: {shown_path(path)} is a damaged zip", cause=error, hint=AGAIN) from None
    what, hint = _name_kind(path, start)
    raise UserError(f"portraits.source: {shown_path(path)} {what}", expected="a folder or a zip", hint=hint)


def _name_kind(path: Path, start: bytes) -> tuple[str, str | None]:
    """Name the kind of a file that is no zip, and the next step."""
    if not start:
        return "is empty", AGAIN
    for beginning, what, hint in KINDS:
        if start.startswith(beginning):
            return what, hint
    if start[257:262] == b"ustar":
        return "is a tar archive, no zip", UNPACK
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page, no zip", "the address gave a page instead of the file: " + AGAIN
    if path.suffix.lower() in PICTURES:
        return "is a single picture: neither a folder nor a zip file", f"portraits.source={shown_path(path.parent)}"
    return "is neither a folder nor a zip file", None
