"""Names in layouts: their normal form, and the joining of names that mean one picture.

Labels, landmarks, reconstructions, edits and licences name pictures in other words than the folder or zip does: with
backslashes, another suffix, composed letters, or one folder more or less. Two names are joined by the first of these
that they agree in, and only where no other name does: the path; the path with any case of suffix; the path without
suffix; the same in any case; and the end of the path, of which the shorter name is the whole.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from data_catalog.samples.formats import SUFFIXES as PICTURES

SUFFIXES = PICTURES | {".txt", ".mat", ".json", ".npy", ".npz"}  # a further dot, as in face.1, belongs to the name
HIDDEN = (".", "__MACOSX")  # beginnings of folders and files that systems add


class LeftOut(NamedTuple):
    """Things of the user's that are not taken: a phrase with their number and the reason, and their names."""

    said: str
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"{self.said}; for example {self.shown[0]}"

    @property
    def shown(self) -> list[str]:
        """The names, each on one line: a line break or another control character in it is escaped."""
        return [name if name.isprintable() else ascii(name)[1:-1] for name in self.names]


def counted(number: int, noun: str, of: int | None = None) -> str:
    """`1 picture`, `2 pictures`, `2 of 4 pictures`."""
    total = number if of is None else of
    return f"{number}{'' if of is None else f' of {of}'} {noun}{'' if total == 1 else 's'}"


def plain(name: str) -> str:
    """Return a name with "/" between its parts, composed (NFC), without empty parts, "." and ".."."""
    parts = name.replace("\\", "/").split("/")
    return unicodedata.normalize("NFC", "/".join(part for part in parts if part not in ("", ".", "..")))


def without_suffix(name: str) -> str:
    """Return a name without the suffix of a picture or of a file about one, in any case."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix.lower()}" in SUFFIXES and stem and not stem.endswith("/") else name


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is one that systems add or hide."""
    return any(part.startswith(HIDDEN) for part in name.split("/"))


def is_picture(name: str) -> bool:
    """Whether a name has the suffix of a picture."""
    return f".{name.rpartition('.')[2].lower()}" in PICTURES


def join(given: Iterable[str], pictures: Iterable[str], ends: bool = True) -> dict[str, str]:
    """Return the given name of each picture that has one: {picture: name}.  ends: also join by ends of paths."""
    known, names = list(pictures), dict.fromkeys(given)
    joined = {picture: picture for picture in known if picture in names}  # nearly all, as a rule
    left = [name for name in names if name not in joined]
    if not left:
        return joined
    for form in (plain, _any_suffix, _stem, _any_case):
        places = _group(known, form)
        for key, alike in _group(left, form).items():
            found = places.get(key, [])
            if len(alike) == len(found) == 1 and found[0] not in joined:
                joined[found[0]] = alike[0]
        used = set(joined.values())
        left = [name for name in left if name not in used]
        if not left:
            return joined
    return joined | (_join_ends(left, known, joined) if ends else {})


def _join_ends(left: list[str], known: list[str], joined: dict[str, str]) -> dict[str, str]:
    """Join what names the end of a picture's path, or the picture the end of its path."""
    whole = _group(known, _any_case)
    ends: dict[str, list[str]] = {}
    for name in known:
        for end in _ends(_any_case(name)):
            ends.setdefault(end, []).append(name)
    found: dict[str, str] = {}
    for name in left:
        form = _any_case(name)
        nearest: list[str] = next((whole[end] for end in _ends(form) if end in whole), [])
        places = ends.get(form, nearest)
        if len(places) == 1 and places[0] not in joined:
            found[name] = places[0]
    asked = Counter(found.values())
    return {picture: name for name, picture in found.items() if asked[picture] == 1}


def _ends(path: str) -> Iterator[str]:
    """Ends of a path, the longest first; not the path itself."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _any_suffix(name: str) -> str:
    name = plain(name)
    stem = without_suffix(name)
    return stem + name[len(stem) :].lower()


def _stem(name: str) -> str:
    return without_suffix(plain(name))


def _any_case(name: str) -> str:
    return _stem(name).casefold()


def _group(names: Iterable[str], form: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(form(name), []).append(name)
    return groups
