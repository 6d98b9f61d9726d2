"""Names of students, and notes of where they were exported to: two small files below the data root.

names.json     {name: digest of the student}
exports.json   {digest of the student: [folder, ...]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from data_catalog.config.errors import UserError
from data_catalog.config.names import allowed_name
from data_catalog.config.places import shown_path
from data_catalog.samples.encoding import encode_json
from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.store import Store, writing

NAMES, EXPORTS = "names.json", "exports.json"
NAME = re.compile(r"[a-z][a-z0-9._-]{0,63}")
# Suffixes of archives and of files of weights and pictures: no folder should be named so by mistake.
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
FILES = (*ARCHIVES, ".safetensors", ".pt", ".pth", ".ckpt", ".onnx", ".bin", ".parquet", ".json", ".png")
HEXADECIMAL = re.compile(r"[0-9a-f]+")
LATEST = "latest"


def check_name(name: str) -> None:
    """Raise UserError for a name that a student cannot have."""
    wrong = ""
    if name == LATEST:
        wrong = ": it always is the newest one"
    elif HEXADECIMAL.fullmatch(name):
        wrong = ": it could be the beginning of a digest"
    if wrong or not NAME.fullmatch(name):
        expected = "a small letter, then at most 63 of a-z, 0-9, '.', '_' and '-'; not latest, not a digest"
        near = allowed_name(name)
        hint = f"for example {f'student-{near}' if HEXADECIMAL.fullmatch(near) or near == LATEST else near}"
        raise UserError(f"'{name}' cannot be a student's name{wrong}", expected=expected, hint=hint)


def read_names(root: Path) -> dict[str, str]:
    """Return the student's digest behind each name."""
    names: dict[str, str] = _read(root / NAMES)
    return names


def names_of(root: Path, digest: str) -> list[str]:
    """Names of a student, sorted."""
    return sorted(name for name, named in read_names(root).items() if named == digest)


def give_name(root: Path, name: str, digest: str) -> str | None:
    """Name a student. Returns the digest of the student that had the name before, if any."""
    check_name(name)
    with _changing(root, NAMES) as names:
        before: str | None = names.get(name)
        names[name] = digest
    return before


def check_target(target: Path, archives: tuple[str, ...] = ()) -> None:
    """Refuse an export to a name that is no folder's: of an archive of another kind, or of a file.

    archives: suffixes of the archives that are written, in any case.
    """
    suffix, plain = target.suffix.lower(), target
    if suffix not in FILES or suffix in archives:
        return
    while plain.suffix.lower() in FILES:  # .tar.gz
        plain = plain.with_suffix("")
    raise UserError(
        f"{target} is the name of a file that is not written here",
        expected=" or ".join(["a folder", *(f"a {kind}" for kind in archives)]),
        hint=f"{plain}{''.join(archives[:1])}",
    )


def read_exports(root: Path) -> dict[str, list[str]]:
    """Folders that each student was exported to, by digest."""
    exports: dict[str, list[str]] = _read(root / EXPORTS)
    return exports


def note_export(root: Path, digest: str, folder: Path) -> None:
    """Note that a student was exported to a folder."""
    with _changing(root, EXPORTS) as exports:
        exports[digest] = sorted({*exports.get(digest, []), str(folder.absolute())})


@contextmanager
def _changing(root: Path, file: str) -> Iterator[dict[str, Any]]:
    """Lock a file against other processes and yield its content, which is written back unless the block fails."""
    lock = Store(root).lock_file(file)
    with writing(root):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            document = _read(root / file)
            yield document
            write_atomically(root / file, encode_json(document))


def _read(path: Path) -> dict[str, Any]:
    hint = "fix it, or remove it"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path.name} cannot be read", file=shown_path(path), cause=error, hint=hint) from None
    if not isinstance(document, dict):
        raise UserError(f"{path.name} is not as it was written", file=shown_path(path), hint=hint)
    return document
