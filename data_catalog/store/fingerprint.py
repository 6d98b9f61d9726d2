"""Fingerprints (of intent) and digests (of bytes): sha256 over canonical JSON and over files."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path

# Seconds. A file changed this shortly before its hash may change again without a new mtime: it is not remembered.
RACY_NS = 2_000_000_000


def canonical_json(value: Any) -> str:
    """Return one text per value: sorted keys, no spaces, no nan."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_json(value: Any) -> str:
    """sha256 of the canonical JSON, hexadecimal. The fingerprint of a partition is that of its inputs."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_files(files: Mapping[str, str]) -> str:
    """Content digest of a folder: of its sorted (name, sha256) pairs."""
    return digest_json(sorted(files.items()))


class FileDigests:
    """Digests of outside files (style files, portraits), cached by size, mtime and inode.

    `save` alone writes the cache in `path`: a plan changes nothing on disk.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = False
        self.known: dict[str, list[Any]] = {}
        try:
            self.known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.known = {}  # a lost cache: the files are hashed again

    def digest(self, path: Path) -> str:
        """sha256 of the file's content."""
        name = str(path)
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
            known = self.known.get(name)
            if known is not None and known[:3] == stamp:
                return str(known[3])
            digest = digest_file(path)
        except OSError as error:
            raise UserError(f"{shown_path(path)} cannot be read", cause=error.strerror or error) from None
        if time.time_ns() - status.st_mtime_ns > RACY_NS:
            self.known[name] = [*stamp, digest]
            self.changed = True
        return digest

    def save(self) -> None:
        """Write the cache for the next process."""
        if self.changed:
            write_atomically(self.path, json.dumps(self.known).encode())
            self.changed = False


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader, or a crash at any time, meets the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
