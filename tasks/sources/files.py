"""Files of portraits: a folder or a zip in a fixed order, and the edits among them.

A source is a folder of any pictures, an EG3D folder or zip (`dataset.json` with {"labels": [[name, 25 floats]]}), the
public 3DPE layout (the same, with edits in `<id>_<style>/` beside the originals of `<id>/`), or "procedural", which has
no files. Names are paths below the source, with "/", sorted as text. Either layout may lie in a folder of its own.
"""

from __future__ import annotations

import fnmatch
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from data_catalog.config.errors import UserError
from data_catalog.config.places import find_path, shown_path
from data_catalog.config.settings import PortraitsSettings
from data_catalog.samples.images import Rejected
from tasks.sources.archives import list_members, open_archive
from tasks.sources.memory import derived, remembered
from tasks.sources.names import LeftOut, counted, is_hidden, is_picture, join
from tasks.sources.walk import locate, walk

LABELS = "dataset.json"
LANDMARKS = "landmarks.json"
LICENCES = "ffhq-dataset-v2.json"
DETECTIONS = "detections"  # EG3D's folder of landmark files, beside the pictures
NOT_PORTRAITS = (LABELS, LANDMARKS, LICENCES, "cameras.json")
NUMBERED = re.compile(r"\d{5}")  # <id> of the public 3DPE layout
NO_UTF8 = Rejected("name is not UTF-8", "rename the file")


@dataclass(frozen=True)
class Listing:
    """Portrait files, in order. `edits` are by their originals: {original: {style: name}}."""

    names: tuple[str, ...]
    edits: dict[str, dict[str, str]] = field(default_factory=dict)
    others: tuple[str, ...] = ()  # files that are no portraits: edits, and those that the pattern leaves out
    bases: tuple[str, ...] = ()  # folders that a dataset.json describes: "", or "ffhq/"
    beside: frozenset[str] = frozenset()  # files about portraits
    members: dict[str, str] = field(default_factory=dict)  # of a zip, by name
    odd: frozenset[str] = frozenset()  # names that are no UTF-8
    left_out: tuple[LeftOut, ...] = ()

    @cached_property
    def places(self) -> dict[str, int]:
        """Map each name to its position."""
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def outermost(self) -> dict[str, str]:
        """Map the name of each file about portraits, without its folder, to the outermost one."""
        inward = sorted(self.beside, key=lambda name: (name.count("/"), name), reverse=True)
        return {PurePosixPath(name).name: name for name in inward}

    @cached_property
    def detections(self) -> dict[str, str]:
        """Map each of EG3D's landmark files, as if it lay beside its picture, to its name."""
        return {name.replace(f"{DETECTIONS}/", ""): name for name in self.beside if _is_detection(name)}

    @cached_property
    def styles(self) -> Counter[str]:
        """Count the edits of each style, by its name here."""
        return Counter(style for of_portrait in self.edits.values() for style in of_portrait)


@dataclass(frozen=True)
class Source:
    """The chosen files of a folder or a zip. `names` are in order; block b holds `names[b * size : (b + 1) * size]`."""

    root: Path
    listing: Listing
    names: tuple[str, ...]

    @property
    def is_zip(self) -> bool:
        return self.root.is_file()

    def block(self, number: int, size: int) -> tuple[str, ...]:
        return self.names[number * size : (number + 1) * size]

    def beside(self, file: str) -> str | None:
        """Return the name of a file about the portraits, such as landmarks.json: the outermost of this name."""
        return self.listing.outermost.get(file)

    def path(self, name: str) -> Path:
        """Return the path of a file in a folder."""
        return locate(self.root, name)

    def readable(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the paths of those files in a folder that this user may read. The others are rejected one by one."""
        paths = {name: self.path(name) for name in names if name not in self.listing.odd}
        return {name: path for name, path in paths.items() if may_read(path)}

    def files(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the files behind names; of a zip, the zip."""
        return {"archive": self.root} if self.is_zip else self.readable(names)

    def read(self, name: str) -> bytes | Rejected:
        """The bytes of a file, or why there are none."""
        if name in self.listing.odd:
            return NO_UTF8
        try:
            if self.is_zip:
                return open_archive(self.root).read(self.listing.members[name])
            return self.path(name).read_bytes()
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            # RuntimeError: an encrypted member.  NotImplementedError: a compression that Python does not know.
            cause = error.strerror if isinstance(error, OSError) and error.strerror else error
            return Rejected("unreadable", f"{type(error).__name__}: {cause}")


def may_read(path: Path) -> bool:
    """Whether this user may read a file."""
    return os.access(path, os.R_OK, effective_ids=True)


def list_files(settings: PortraitsSettings) -> tuple[Path, Listing]:
    """List the source that the settings name. Returns its path and its files."""
    root = find_path(settings.source)
    try:
        is_folder, is_file = root.is_dir(), root.is_file()
    except OSError as error:
        raise UserError(f"portraits.source: {shown_path(root)} cannot be read", cause=error.strerror) from None
    if is_folder:
        listing = _list_folder(root, settings.pattern)
    elif is_file:
        listing = remembered(f"listing {settings.pattern}", root, lambda: _list_zip(root, settings.pattern))
    elif root.exists():
        raise UserError(f"portraits.source: {shown_path(root)} is neither a folder nor a zip file")
    else:
        raise UserError(
            f"portraits.source: there is no {shown_path(root)}",
            hint='a folder of pictures, an EG3D zip, or "procedural"',
        )
    if not listing.names:
        found = {f"found {number}": each.line for number, each in enumerate(listing.left_out, 1)}
        raise UserError(
            f"portraits.source: there is no file to take in {shown_path(root)}", pattern=settings.pattern, **found
        )
    return root, listing


def _list_folder(root: Path, pattern: str) -> Listing:
    found = walk(root)
    return derived(f"listing {pattern}", root, (found,), lambda: _sort(found.names, found.odd, pattern, found.left_out))


def _list_zip(path: Path, pattern: str) -> Listing:
    listed = list_members(path)
    members = dict(listed)  # of a name that is there twice, the last counts, as it does for unzip
    twice = tuple(name for name, number in Counter(name for name, _ in listed).items() if number > 1)
    said = f"{counted(len(twice), 'name')} of the zip is there twice; the last file of it counts"
    inside = sorted(name for name in members if not is_hidden(name) and _is_about(name) and name.endswith(LANDMARKS))
    inside += sorted(name for name in members if not is_hidden(name) and _is_detection(name))
    unread = f"{counted(len(inside), 'landmark file')} not read in a zip: unpack it, or set align.landmarks"
    left_out = [LeftOut(text, tuple(names)) for text, names in ((said, twice), (unread, inside)) if names]
    return _sort(sorted(members), [], pattern, left_out, members)


def _sort(
    files: list[str], odd: list[str], pattern: str, passed: list[LeftOut], members: dict[str, str] | None = None
) -> Listing:
    """Sort the files of a source into portraits, edits, and files about them."""
    odd = [name for name in odd if not is_hidden(name)]
    hidden = tuple(name for name in files if is_hidden(name) and is_picture(name) and "._" not in name)
    seen = [name for name in files if not is_hidden(name)]
    beside = frozenset(name for name in seen if _is_about(name))
    pictures = sorted([*(name for name in seen if name not in beside), *odd])
    chosen = [name for name in pictures if _fits(name, pattern)]
    unfit = tuple(name for name in pictures if not _fits(name, pattern))
    bases, inner = _find_bases(beside)
    names, edits, alone = _part_edits(chosen, bases)
    reasons = (
        (hidden, "picture", "left out: hidden, its name or folder begins with a dot"),
        (unfit, "file", f"left out by portraits.pattern={pattern}"),
        (inner, "dataset.json file", "not read: one in a folder above describes the pictures"),
        (alone, "edit", "left out: no portrait of the same name, or several"),
        (() if bases else _edits_of_no_dataset(names), "picture", "taken as portraits, but edits by their folders: "
         "without dataset.json, <id> needs five digits"),
    )  # fmt: skip
    said = [LeftOut(f"{counted(len(group), noun)} {why}", tuple(group)) for group, noun, why in reasons if group]
    others = tuple(sorted({*pictures} - {*names}))
    return Listing(tuple(names), edits, others, bases, beside, members or {}, frozenset(odd), (*passed, *said))


def _is_about(name: str) -> bool:
    """Whether a file is about portraits."""
    return name.rpartition("/")[2] in NOT_PORTRAITS or _is_detection(name)


def _is_detection(name: str) -> bool:
    return f"/{name}".rpartition("/")[0].endswith(f"/{DETECTIONS}") and name.lower().endswith(".txt")


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name if "/" in pattern else name.rpartition("/")[2], pattern)


def _find_bases(beside: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the folders of the outermost dataset.json, and those dataset.json that lie below another."""
    bases: list[str] = []
    inner: list[str] = []
    labels = [name for name in beside if PurePosixPath(name).name == LABELS]
    for name in sorted(labels, key=lambda name: (name.count("/"), name)):
        folder = name.removesuffix(LABELS)
        if any(folder.startswith(base) for base in bases):
            inner.append(name)
        else:
            bases.append(folder)
    return tuple(bases), tuple(inner)


def _part_edits(names: list[str], bases: tuple[str, ...]) -> tuple[list[str], dict[str, dict[str, str]], list[str]]:
    """Separate originals and, in the 3DPE layout, edits; return also the edits without an original of their own.

    `<id>_<style>/x.png` is an edit of `<id>/x.jpg` below a dataset.json, or anywhere if the id has five digits.
    """
    folders = _by_folder(names)
    edits: dict[str, dict[str, str]] = {}
    alone: list[str] = []
    for (above, folder), inside in folders.items():
        subset, underscore, style = folder.partition("_")
        originals = folders.get((above, subset))
        if not (underscore and style and originals) or not (above in bases or NUMBERED.fullmatch(subset)):
            continue
        found = join(inside, originals, ends=False)
        for original, edited in found.items():
            edits.setdefault(originals[original], {})[style] = inside[edited]
        if found:
            alone += [name for rest, name in inside.items() if rest not in set(found.values())]
    gone = {*alone, *(name for of_portrait in edits.values() for name in of_portrait.values())}
    return [name for name in names if name not in gone], edits, alone


def _by_folder(names: list[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Files of each folder, {rest of the path: name}, by the path above it and its name; none if all lack a "_"."""
    folders: dict[tuple[str, str], dict[str, str]] = {}
    slashed = {name: name.replace("\\", "/") for name in names}
    if not any("_" in path.rpartition("/")[0] for path in slashed.values()):
        return folders  # no edits
    for name, path in slashed.items():
        parts = path.split("/")
        for depth in range(len(parts) - 1):
            above = "".join(f"{part}/" for part in parts[:depth])
            folders.setdefault((above, parts[depth]), {})["/".join(parts[depth + 1 :])] = name
    return folders


def _edits_of_no_dataset(names: list[str]) -> list[str]:
    """Portraits that lie as edits do, `<id>_<style>/x` beside `<id>/x`, where no dataset.json says so."""
    folders = _by_folder(names)
    found: list[str] = []
    for (above, folder), inside in folders.items():
        subset, _, style = folder.partition("_")
        originals = folders.get((above, subset), {})
        if style and originals and len(join(inside, originals, ends=False)) == len(inside):
            found += inside.values()
    return found
