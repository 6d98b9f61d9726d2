"""Files of portraits: a folder or a zip in a fixed order, with the labels beside it.

A source is a folder of any pictures, an EG3D folder or zip (`dataset.json` with {"labels": [[name, 25 floats]]}), the
public 3DPE layout (the same, with edits in `<id>_<style>/` beside the originals of `<id>/`), or "procedural", which has
no files. Names are paths below the source, with "/", sorted as text.
"""

from __future__ import annotations

import fnmatch
import json
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import PortraitsSettings
from data_catalog.samples.images import Rejected

PROCEDURAL = "procedural"
LABELS = "dataset.json"
LANDMARKS = "landmarks.json"
LICENCES = "ffhq-dataset-v2.json"
DETECTIONS = "detections"  # EG3D's folder of landmark files, beside the pictures
NOT_PORTRAITS = (LABELS, LANDMARKS, LICENCES, "cameras.json")
LABEL_SIZE = 25

# Cached in the process, because a plan asks once for every block: a listing by the mtimes of its folders, a file's
# content by its size and mtime.
_listings: dict[tuple[Path, str], tuple[dict[Path, int], Listing]] = {}
_file_memory: dict[tuple[str, Path], tuple[tuple[int, int], Any]] = {}


@dataclass(frozen=True)
class Listing:
    """Portrait files, in order. `edits` are by their originals: {original: {style: name}}."""

    names: tuple[str, ...]
    edits: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def places(self) -> dict[str, int]:
        """Map each name to its position."""
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def styles(self) -> Counter[str]:
        """Count the edits of each style, by its name here."""
        return Counter(style for of_portrait in self.edits.values() for style in of_portrait)

    @cached_property
    def stems(self) -> Counter[str]:
        """Count the files of each name, without folder and suffix."""
        return Counter(PurePosixPath(name).stem for name in self.names)


class Licence(NamedTuple):
    """Author of a photograph, and the terms of its use."""

    licence: str = ""
    licence_url: str = ""
    author: str = ""
    source_url: str = ""


@dataclass(frozen=True)
class Given:
    """Content of `dataset.json`: camera labels, and splits and licences where this project wrote it."""

    labels: dict[str, list[float]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    licences: dict[str, Licence] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The chosen files of a folder or a zip. `names` are in order; block b holds `names[b * size : (b + 1) * size]`."""

    root: Path
    listing: Listing
    count: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.listing.names[: self.count]

    @property
    def is_zip(self) -> bool:
        return self.root.is_file()

    def block(self, number: int, size: int) -> tuple[str, ...]:
        return self.listing.names[number * size : min((number + 1) * size, self.count)]

    def file_keys(self, name: str) -> list[str]:
        """Return the names of files about a picture: its path without suffix, and its name alone if no other has it."""
        path = PurePosixPath(name)
        whole = str(path.with_suffix(""))
        return [whole] if whole == path.stem or self.listing.stems[path.stem] > 1 else [whole, path.stem]

    def files(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the files behind names; of a zip, the zip. One that may not be read is rejected when it is read."""
        if self.is_zip:
            return {"archive": self.root}
        return {name: self.root / name for name in names if os.access(self.root / name, os.R_OK)}

    def read(self, name: str) -> bytes | Rejected:
        """The bytes of a file, or why there are none."""
        try:
            return open_archive(self.root).read(name) if self.is_zip else (self.root / name).read_bytes()
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            # RuntimeError: an encrypted member.  NotImplementedError: a compression that Python does not know.
            return Rejected("unreadable", f"{type(error).__name__}: {error}")


def open_source(settings: PortraitsSettings) -> Source:
    """Open the source that the settings name; only its listing is read."""
    root = find_path(settings.source)
    if root.is_dir():
        listing = _list_folder(root, settings.pattern)
    elif root.is_file() and _is_zip(root):
        listing = remembered(f"listing {settings.pattern}", root, lambda: _list_zip(root, settings.pattern))
    elif root.is_file() and not os.access(root, os.R_OK):
        raise UserError(f"portraits.source: {shown_path(root)} may not be read", hint=f"chmod +r {shown_path(root)}")
    elif root.exists():
        raise UserError(f"portraits.source: {shown_path(root)} is neither a folder nor a zip file")
    else:
        raise UserError(
            f"portraits.source: there is no {shown_path(root)}",
            hint='a folder of pictures, an EG3D zip, or "procedural"',
        )
    if not listing.names:
        raise UserError(f"portraits.source: there is no file to take in {shown_path(root)}", pattern=settings.pattern)
    total = len(listing.names)
    return Source(root, listing, total if settings.count is None else min(total, settings.count))


def read_given(source: Source) -> Given:
    """Read the `dataset.json` of a source; empty where it has none."""
    holder = source.root if source.is_zip else source.root / LABELS
    return remembered("given", holder, lambda: _parse_given(source)) if holder.exists() else Given()


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open the zip once per process: reading a directory of 100,000 names takes half a second."""
    # A forked process shares the position in the file with its parent and needs its own.
    archive: zipfile.ZipFile = remembered(f"archive {os.getpid()}", path, lambda: zipfile.ZipFile(path))
    return archive


def remembered(what: str, path: Path, read: Callable[[], Any]) -> Any:
    """`read()`, once for each state of a file."""
    status = path.stat()
    stamp = (status.st_size, status.st_mtime_ns)
    known = _file_memory.get((what, path))
    if known is None or known[0] != stamp:
        known = _file_memory[what, path] = (stamp, read())
    return known[1]


def _is_portrait(name: str, pattern: str) -> bool:
    path = PurePosixPath(name)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts) or path.name in NOT_PORTRAITS:
        return False
    if path.parent.name == DETECTIONS and path.suffix == ".txt":
        return False
    return fnmatch.fnmatchcase(name if "/" in pattern else path.name, pattern)


def _list_folder(root: Path, pattern: str) -> Listing:
    known = _listings.get((root, pattern))
    if known is not None and all(_mtime(folder) == mtime for folder, mtime in known[0].items()):
        return known[1]
    folders: dict[Path, int] = {}
    names = []
    for folder, _, files in os.walk(root):
        folders[Path(folder)] = _mtime(Path(folder))
        names += [(Path(folder) / file).relative_to(root).as_posix() for file in files]
    found = [name for name in names if _is_portrait(name, pattern) and (root / name).is_file()]
    listing = _part_edits(sorted(found), (root / LABELS).is_file())
    _listings[root, pattern] = (folders, listing)
    return listing


def _list_zip(path: Path, pattern: str) -> Listing:
    names = [info.filename for info in open_archive(path).infolist() if not info.is_dir()]
    return _part_edits(sorted(name for name in names if _is_portrait(name, pattern)), LABELS in names)


def _part_edits(names: list[str], has_labels: bool) -> Listing:
    """Separate originals and, in the 3DPE layout, edits: `<id>_<style>/x.png` is one if `<id>/x.png` exists."""
    known = set(names) if has_labels else set()
    originals: list[str] = []
    edits: dict[str, dict[str, str]] = {}
    for name in names:
        folder, slash, rest = name.partition("/")
        subset, underscore, style = folder.partition("_")
        original = f"{subset}/{rest}"
        if slash and underscore and style and original in known:
            edits.setdefault(original, {})[style] = name
        else:
            originals.append(name)
    return Listing(tuple(originals), edits)


def _mtime(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1


def _is_zip(path: Path) -> bool:
    return bool(remembered("is a zip", path, lambda: zipfile.is_zipfile(path)))


def _parse_given(source: Source) -> Given:
    try:
        if source.is_zip:
            archive = open_archive(source.root)
            if LABELS not in archive.NameToInfo:
                return Given()
            document = json.loads(archive.read(LABELS))
        else:
            document = json.loads((source.root / LABELS).read_bytes())
        labels = document["labels"] or []
        pairs = labels.items() if isinstance(labels, dict) else labels
        splits = {str(name): str(split) for name, split in document.get("splits", {}).items()}
        licences = {str(name): Licence(**told) for name, told in document.get("licences", {}).items()}
        return Given({str(name): [float(value) for value in label] for name, label in pairs}, splits, licences)
    except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{shown_path(source.root)}: {LABELS} is not a list of labels",
            cause=f"{type(error).__name__}: {error}",
            expected='{"labels": [["00000/img00000000.png", [25 numbers]], ...]}',
        ) from None
