"""Files below a folder: links followed once each, loops ended, closed folders and this project's results left out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from data_catalog.config.places import data_root
from data_catalog.store.catalog import INDEX
from tasks.sources.names import LeftOut, counted

# Folders and files of a data root, in a source that holds one: results of earlier runs are no portraits.
OWN = {"store", "catalog", "datasets", "mlflow", "prefect", "runs", "answers", "unusable-answers", "page", "video"}
OWN |= {"baselines", "pretrain", "ablation", "claims", "names.json", "exports.json", "edited.mp4"}

_walks: dict[Path, Walk] = {}  # of this process, by the mtimes of their folders: a plan asks once for every block


@dataclass
class Walk:
    """Names of files below a folder, with "/", sorted, and what was passed over.

    `odd` are names that are no UTF-8, with escapes: they cannot stand in a record or a table.
    """

    names: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)  # folders that this user may not enter
    broken: list[str] = field(default_factory=list)  # links that lead nowhere
    own: list[str] = field(default_factory=list)  # results of this project
    folders: dict[Path, int] = field(default_factory=dict)  # mtime in ns of each folder that was entered

    @property
    def left_out(self) -> list[LeftOut]:
        """Things that were passed over, by reason."""
        reasons = (
            (self.closed, "folder", "left out: no permission to enter"),
            (self.broken, "link", "left out: nothing is there"),
            (self.own, "result", "left out: made by stillroom, whose data root lies in this folder"),
        )
        return [LeftOut(f"{counted(len(names), noun)} {why}", tuple(names)) for names, noun, why in reasons if names]


def walk(root: Path) -> Walk:
    """List the files below a folder. A name is its path, as UTF-8 whatever the locale; see `locate`."""
    known = _walks.get(root)
    if known is None or any(_mtime(folder) != mtime for folder, mtime in known.folders.items()):
        known = _walks[root] = _walk(root)
    return known


def locate(root: Path, name: str) -> Path:
    """Return the path of a name of `walk`."""
    return root / os.fsdecode(name.encode())


def _walk(root: Path) -> Walk:
    found, seen = Walk(), set[tuple[int, int]]()
    ours = data_root().resolve()
    # Folders first, then links to folders: a picture has the name that it has without links.
    waiting, links = [(root, "")], list[tuple[Path, str]]()
    while waiting or links:
        folder, name = waiting.pop() if waiting else links.pop(0)
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError:
            found.closed.append(name or "./")
            continue
        found.folders[folder] = status.st_mtime_ns
        own = OWN if folder.resolve() == ours or (folder / INDEX).is_file() else set()
        for entry in entries:
            path, inside = Path(entry.path), _text(name, entry.name)
            if entry.name in own:
                found.own.append(inside)
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((path, f"{inside}/"))
            elif entry.is_symlink() and not _exists(path):
                found.broken.append(inside)
            elif entry.is_symlink() and path.is_dir():
                if not _is_loop(root, path):
                    links.append((path, f"{inside}/"))
            elif entry.is_file():
                (found.names if locate(root, inside) == path else found.odd).append(inside)
    found.names.sort()
    return found


def _text(above: str, name: str) -> str:
    """Name of an entry below the root; bytes that are no UTF-8 are escapes, and `locate` leads elsewhere."""
    return above + os.fsencode(name).decode(errors="backslashreplace")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # links that lead to one another
        return False


def _is_loop(root: Path, link: Path) -> bool:
    """Whether a link leads to the root, to the folder that it lies in, or to one above these."""
    target = link.resolve()
    return any(inside.resolve().is_relative_to(target) for inside in (root, link.parent))


def _mtime(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return -1
