"""Files of a source that are, byte for byte, an earlier file of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tasks.sources.archives import open_archive
from tasks.sources.files import Listing, Source
from tasks.sources.memory import remembered

ENDS = 4096  # bytes at the start and end of a file that are compared first


Mark = tuple[int, str]  # size and, where other files share it, a digest of the ends; for a zip's member, its CRC


@dataclass
class _Marks:
    """Marks of a listing's files, and the positions of the files of each mark, in order."""

    listing: Listing
    of_name: dict[str, Mark] = field(default_factory=dict)
    places: dict[Mark, list[int]] = field(default_factory=dict)

    def fill(self, source: Source) -> None:
        self.of_name = _all_marks(source)
        for place, name in enumerate(self.listing.names):
            self.places.setdefault(self.of_name[name], []).append(place)

    def still_true(self, source: Source, names: Iterable[str]) -> bool:
        """Whether these files are unchanged."""
        known = {name: self.of_name[name] for name in names}
        return source.is_zip or all(_mark(source.path(name), mark[1]) == mark for name, mark in known.items())


_known: dict[Path, _Marks] = {}


def find_repeats(source: Source, names: Iterable[str]) -> dict[str, str]:
    """Find files of a source that repeat an earlier one: name -> the earlier name.

    Only files with equal marks are read. A picture that repeats in other bytes is found within its block alone.
    """
    chosen = list(names)
    marks = _known.get(source.root)
    if marks is None or marks.listing is not source.listing or not marks.still_true(source, chosen):
        marks = _known[source.root] = _Marks(source.listing)
        marks.fill(source)
    repeats: dict[str, str] = {}
    for name in chosen:
        mark, place = marks.of_name[name], source.listing.places[name]
        # Nothing is gained by comparing empty files: each is rejected for what it is.
        for earlier in marks.places[mark] if mark[0] > 0 else []:
            if earlier >= place:
                break
            if source.is_zip or _equal(source, name, source.listing.names[earlier]):
                repeats[name] = source.listing.names[earlier]
                break
    return repeats


def _all_marks(source: Source) -> dict[str, Mark]:
    if source.is_zip:
        infos = {name: open_archive(source.root).getinfo(member) for name, member in source.listing.members.items()}
        return {name: (info.file_size, f"{info.CRC:08x}") for name, info in infos.items()}
    sizes = {name: _size(source.path(name)) for name in source.listing.names}
    frequent = Counter(sizes.values())
    return {name: _mark(source.path(name), "ends" if frequent[size] > 1 else "") for name, size in sizes.items()}


def _mark(path: Path, ends: str) -> Mark:
    """The mark of a file, with a digest of its ends where `ends` is not empty."""
    try:
        return _size(path), _digest(path, whole=False) if ends else ""
    except OSError:
        return -1, ""  # rejected when it is read


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _equal(source: Source, first: str, second: str) -> bool:
    try:
        return _digest(source.path(first)) == _digest(source.path(second))
    except OSError:
        return False


def _digest(path: Path, whole: bool = True) -> str:
    def read() -> str:
        with path.open("rb") as stream:
            if whole:
                return hashlib.file_digest(stream, "sha256").hexdigest()
            start = stream.read(ENDS)
            stream.seek(max(path.stat().st_size - ENDS, 0))
            return hashlib.sha256(start + stream.read(ENDS)).hexdigest()

    return str(remembered("digest" if whole else "ends", path, read))
