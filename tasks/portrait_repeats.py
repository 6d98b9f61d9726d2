"""Files of a source that are, byte for byte, an earlier file of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tasks.portrait_sources import Listing, Source, open_archive, remembered

ENDS = 4096  # bytes, of the start and of the end of a file, that are compared before all of it is


@dataclass
class _Sizes:
    """What was seen of a listing: each file's size, and the places of the files of each size, in order."""

    listing: Listing
    of_name: dict[str, int] = field(default_factory=dict)
    places: dict[int, list[int]] = field(default_factory=dict)

    def fill(self, source: Source) -> None:
        self.of_name = _all_sizes(source)
        self.places = {}
        for place, name in enumerate(self.listing.names):
            self.places.setdefault(self.of_name.get(name, -1), []).append(place)


_known: dict[Path, _Sizes] = {}


def find_repeats(source: Source, names: Iterable[str]) -> dict[str, str]:
    """Of these files of a source, those that repeat an earlier one: name -> the earlier name.

    Only files of equal size are read. A picture that repeats in other bytes is found within its block alone.
    """
    chosen = list(names)
    sizes = _known.get(source.root)
    if sizes is None or sizes.listing is not source.listing or _moved(source, chosen, sizes):
        sizes = _known[source.root] = _Sizes(source.listing)
        sizes.fill(source)
    repeats: dict[str, str] = {}
    for name in chosen:
        size, place = sizes.of_name.get(name, -1), source.listing.places[name]
        # Nothing is gained by comparing empty files: each is rejected for what it is.
        for earlier in sizes.places[size] if size > 0 else []:
            if earlier >= place:
                break
            if _equal(source, name, source.listing.names[earlier]):
                repeats[name] = source.listing.names[earlier]
                break
    return repeats


def _all_sizes(source: Source) -> dict[str, int]:
    if source.is_zip:
        return {info.filename: info.file_size for info in open_archive(source.root).infolist()}
    return {name: _size(source.root / name) for name in source.listing.names}


def _moved(source: Source, names: list[str], sizes: _Sizes) -> bool:
    """Whether one of these files has another size than was seen."""
    return not source.is_zip and any(_size(source.root / name) != sizes.of_name.get(name) for name in names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _equal(source: Source, first: str, second: str) -> bool:
    if source.is_zip:
        known = open_archive(source.root).NameToInfo
        return known[first].CRC == known[second].CRC
    one, other = source.root / first, source.root / second
    try:
        return _digest(one, whole=False) == _digest(other, whole=False) and _digest(one) == _digest(other)
    except OSError:
        return False  # it is rejected when it is read


def _digest(path: Path, whole: bool = True) -> str:
    def read() -> str:
        with path.open("rb") as stream:
            if whole:
                return hashlib.file_digest(stream, "sha256").hexdigest()
            start = stream.read(ENDS)
            stream.seek(max(path.stat().st_size - ENDS, 0))
            return hashlib.sha256(start + stream.read(ENDS)).hexdigest()

    return str(remembered("digest" if whole else "ends", path, read))
