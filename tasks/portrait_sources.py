"""Where portraits come from: the files of a folder or a zip, in a fixed order, with the labels given beside them.

A source is a folder of any pictures, an EG3D folder or zip (`dataset.json` with {"labels": [[name, 25 floats]]}), or
"procedural", which has no files. Names are paths below the source, with "/"; their order is that of the text.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_catalog.errors import UserError
from data_catalog.places import find_path, shown_path
from data_catalog.settings import PortraitsSettings

PROCEDURAL = "procedural"
LABELS = "dataset.json"
LANDMARKS = "landmarks.json"
DETECTIONS = "detections"  # EG3D's folder of landmark files, beside the pictures
LABEL_SIZE = 25

# Remembered within a process, because a plan asks once for every block: a listing by the mtimes of its folders, what a
# file holds by its size and mtime.
_listings: dict[tuple[Path, str], tuple[dict[Path, int], tuple[str, ...]]] = {}
_file_memory: dict[tuple[str, Path], tuple[tuple[int, int], Any]] = {}


@dataclass(frozen=True)
class Source:
    """The chosen files of a folder or a zip. `names` are in order; block b holds `names[b * size : (b + 1) * size]`."""

    root: Path
    names: tuple[str, ...]

    @property
    def is_zip(self) -> bool:
        return self.root.is_file()

    def block(self, number: int, size: int) -> tuple[str, ...]:
        return self.names[number * size : (number + 1) * size]


def open_source(settings: PortraitsSettings) -> Source:
    """The source that the settings name; its listing only."""
    root = find_path(settings.source)
    if root.is_dir():
        names = _folder_names(root, settings.pattern)
    elif root.is_file() and zipfile.is_zipfile(root):
        names = _remembered("names", root, lambda: _zip_names(root))
        names = tuple(name for name in names if _is_portrait(name, settings.pattern))
    elif root.exists():
        raise UserError(f"portraits.source: {shown_path(root)} is neither a folder nor a zip file")
    else:
        raise UserError(
            f"portraits.source: there is no {shown_path(root)}",
            hint='a folder of pictures, an EG3D zip, or "procedural"',
        )
    if not names:
        raise UserError(f"portraits.source: there is no file to take in {shown_path(root)}", pattern=settings.pattern)
    return Source(root, names if settings.count is None else names[: settings.count])


def read_labels(source: Source) -> dict[str, list[float]]:
    """Camera labels (25 floats) given for files of a source, by name; empty where it has no dataset.json."""
    holder = source.root if source.is_zip else source.root / LABELS
    return _remembered("labels", holder, lambda: _parse_labels(source)) if holder.exists() else {}


def find_repeats(source: Source) -> dict[str, str]:
    """Files that are, byte for byte, an earlier file of the source: name -> the earlier name.

    Only files of equal size are read. A picture that repeats in other bytes is found within its block alone.
    """
    by_size: dict[int, list[str]] = {}
    for name, size in _sizes(source).items():
        by_size.setdefault(size, []).append(name)
    repeats: dict[str, str] = {}
    for names in by_size.values():
        first: dict[str, str] = {}
        # Nothing is gained by comparing empty files: each is rejected for what it is.
        for name in names if len(names) > 1 and _sizes(source)[names[0]] else []:
            earlier = first.setdefault(_digest(source, name), name)
            if earlier != name:
                repeats[name] = earlier
    return repeats


def _is_portrait(name: str, pattern: str) -> bool:
    path = PurePosixPath(name)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts) or path.name in (LABELS, LANDMARKS):
        return False
    if path.parent.name == DETECTIONS and path.suffix == ".txt":
        return False
    return fnmatch.fnmatchcase(name if "/" in pattern else path.name, pattern)


def _folder_names(root: Path, pattern: str) -> tuple[str, ...]:
    known = _listings.get((root, pattern))
    if known is not None and all(_mtime(folder) == mtime for folder, mtime in known[0].items()):
        return known[1]
    folders: dict[Path, int] = {}
    names = []
    for folder, _, files in os.walk(root):
        folders[Path(folder)] = _mtime(Path(folder))
        names += [(Path(folder) / file).relative_to(root).as_posix() for file in files]
    found = tuple(sorted(n for n in names if _is_portrait(n, pattern) and (root / n).is_file()))
    _listings[root, pattern] = (folders, found)
    return found


def _mtime(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _zip_names(path: Path) -> tuple[str, ...]:
    with zipfile.ZipFile(path) as archive:
        return tuple(sorted(info.filename for info in archive.infolist() if not info.is_dir()))


def _sizes(source: Source) -> dict[str, int]:
    if not source.is_zip:
        return {name: (source.root / name).stat().st_size for name in source.names}

    def sizes() -> dict[str, int]:
        with zipfile.ZipFile(source.root) as archive:
            return {info.filename: info.file_size for info in archive.infolist()}

    found = _remembered("sizes", source.root, sizes)
    return {name: found[name] for name in source.names}


def _digest(source: Source, name: str) -> str:
    if not source.is_zip:
        path = source.root / name
        return str(_remembered("digest", path, lambda: hashlib.sha256(path.read_bytes()).hexdigest()))

    def checks() -> dict[str, str]:
        with zipfile.ZipFile(source.root) as archive:
            return {info.filename: f"{info.CRC:08x}-{info.file_size}" for info in archive.infolist()}

    return str(_remembered("checks", source.root, checks)[name])


def _parse_labels(source: Source) -> dict[str, list[float]]:
    try:
        if source.is_zip:
            with zipfile.ZipFile(source.root) as archive:
                if LABELS not in archive.namelist():
                    return {}
                document = json.loads(archive.read(LABELS))
        else:
            document = json.loads((source.root / LABELS).read_bytes())
        pairs = [(str(name), [float(value) for value in label]) for name, label in document["labels"] or []]
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{shown_path(source.root)}: {LABELS} is not a list of labels",
            cause=f"{type(error).__name__}: {error}",
            expected='{"labels": [["00000/img00000000.png", [25 numbers]], ...]}',
        ) from None
    return dict(pairs)


def _remembered(what: str, path: Path, read: Any) -> Any:
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    known = _file_memory.get((what, path))
    if known is None or known[0] != stamp:
        known = _file_memory[what, path] = (stamp, read())
    return known[1]
