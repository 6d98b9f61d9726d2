"""Errors of the operating system at a path, as a message with path, cause and next step."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT

FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors that a path, a disk or a limit causes, and the next step for each. `{path}` is the path.
STEPS = {
    errno.ENOENT: "is it written right? ls -ld '{path}'",
    errno.EACCES: "ls -ld '{path}' shows who may read and write it; or name another path",
    errno.EPERM: "ls -ld '{path}' shows who may read and write it; or name another path",
    errno.EROFS: "name a path on a disk that may be written",
    errno.ENOTDIR: "a file stands where a folder is needed: name another path, or move the file away",
    errno.EEXIST: "a file stands where a folder is needed: name another path, or move the file away",
    errno.EISDIR: "a folder stands where a file is needed: name another path",
    errno.ENOTEMPTY: "name a folder that is not there yet",
    errno.ENAMETOOLONG: "name a shorter path: a name has at most 255 bytes",
    errno.ELOOP: "these links lead in a circle: ls -ld '{path}'",
    errno.EFBIG: "raise the limit (ulimit -f) and run the same command again",
    errno.EMFILE: "raise the limit (ulimit -n 4096), or use fewer workers: --set run.workers=1",
    errno.ENFILE: "end other programs of this machine, or use fewer workers: --set run.workers=1",
    errno.ENOMEM: "use fewer workers: --set run.workers=1",
    errno.EIO: "the disk or network drive fails: look at it (dmesg), then run the same command again",
    errno.ESTALE: "the network drive was mounted anew: cd out of it and back, then run the same command again",
    errno.ENODEV: "is the drive mounted? findmnt",
    errno.ENXIO: "is the drive mounted? findmnt",
    errno.ETIMEDOUT: "is the network drive mounted? findmnt",
    errno.EHOSTDOWN: "is the network drive mounted? findmnt",
    errno.ENOTCONN: "is the network drive mounted? findmnt",
    errno.EBUSY: "another program uses it; end that, then run the same command again",
    errno.ETXTBSY: "another program uses it; end that, then run the same command again",
    errno.EXDEV: "name a path on the same disk",
    errno.EINVAL: "this disk does not take such a name: name another path",
}
ANYWHERE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EFBIG)  # said without a path as well


def disk_mistake(error: BaseException, root: Path | None = None) -> UserError | None:
    """Return the message for an error of the operating system; None where it is none that a user can mend.

    root: the data root. An error at a file of the program itself is a bug.
    """
    if not isinstance(error, OSError):
        return None
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
    if error.errno in FULL:
        return no_space(_full_folder(path, root))
    if error.errno == errno.ENOENT and path is None and "temporary directory" in str(error):
        hint = "set TMPDIR to a folder that may be written and has space"
        return UserError("there is no folder for temporary files", tried=error.strerror, hint=hint)
    if error.errno not in STEPS or (path is None and error.errno not in ANYWHERE) or _is_ours(path):
        return None
    step, cause = STEPS[error.errno], (error.strerror or type(error).__name__).lower()
    if path is None:
        return UserError(f"the system refuses: {cause}", hint=step)
    second = {"to": os.fsdecode(error.filename2)} if isinstance(error.filename2, str | bytes) else {}
    return UserError(f"a path cannot be used: {cause}", path=path, **second, hint=step.format(path=path))


def no_space(folder: Path) -> UserError:
    """Return the error of a full disk, with the folder on it."""
    hint = "free some space and run the same command again; no partial files are kept"
    if folder == temporary_folder():
        hint = "free some space, or set TMPDIR to a folder on another disk; then run the same command again"
        return UserError("there is no space left for temporary files", TMPDIR=folder, hint=hint)
    return UserError("there is no space left on the disk", folder=folder, hint=hint)


def temporary_folder() -> Path | None:
    """Return the folder of temporary files; None where no folder can be used."""
    try:
        return Path(tempfile.gettempdir())
    except OSError:
        return None


def _full_folder(path: str | None, root: Path | None) -> Path:
    """Return the data root, the folder of temporary files, or else the folder of the path."""
    temporary, place = temporary_folder(), Path(path) if path else None
    for known in (root, temporary):
        if known is not None and place is not None and place.is_relative_to(known):
            return known
    if place is not None:
        return place.parent
    return root or temporary or Path.cwd()


def _is_ours(path: str | None) -> bool:
    """Whether the path belongs to the program: its code, or the packages that it uses."""
    code = [PROJECT / name for name in ("flows", "tasks", "models", "data_catalog")]
    return path is not None and any(Path(path).is_relative_to(place) for place in (*code, Path(sys.prefix)))
