"""The store: one folder a partition and fingerprint, whole exactly when its `record.json` is there."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from data_catalog.errors import UserError
from data_catalog.fingerprint import digest_file, digest_files, sync_folder, write_atomically
from data_catalog.record import FileEntry, Record
from data_catalog.stage import Partition

log = logging.getLogger(__name__)

RECORD = "record.json"
FOLDER_CHARS = 16  # of the fingerprint, in a folder's name


class Store:
    """Partitions below `root/store`. Reading never writes; writing happens between `lock` and `commit`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.folder_of_all = self.root / "store"

    def partition_folder(self, partition: Partition) -> Path:
        """The folder of all fingerprints of a partition."""
        return self.folder_of_all / partition.key

    def folder(self, partition: Partition, fingerprint: str) -> Path:
        """The folder of one partition as one intent made it."""
        return self.partition_folder(partition) / fingerprint[:FOLDER_CHARS]

    def find(self, partition: Partition, fingerprint: str) -> Record | None:
        """The record of exactly this partition and fingerprint, or None."""
        record = read_record(self.folder(partition, fingerprint))
        honest = record is not None and (record.partition, record.fingerprint) == (partition.key, fingerprint)
        return record if honest else None

    def folder_of(self, record: Record) -> Path:
        """Where the files of a record are."""
        return self.folder(Partition.parse(record.partition), record.fingerprint)

    def record_folders(self) -> Iterator[Path]:
        """Folders that hold a record, whatever it says, in order."""
        for current, folders, names in os.walk(self.folder_of_all):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if RECORD in names:
                folders.clear()
                yield Path(current)

    def missing(self, record: Record) -> list[str]:
        """What a look at names and sizes finds wrong; contents are checked by `verify`."""
        return missing_files(self.folder_of(record), {name: entry.bytes for name, entry in record.files.items()})

    @contextmanager
    def lock(self, partition: Partition) -> Iterator[None]:
        """Hold a partition against other processes. The lock of a dead process is free."""
        path = self.root / "catalog" / "locks" / (partition.key.replace("/", "--") + ".lock")
        with writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("waiting for another process that makes %s", partition.key)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def begin(self, partition: Partition, fingerprint: str, resumes: bool = False) -> Path:
        """A folder under a temporary name. With `resumes`, the one that an interrupted attempt left."""
        parent = self.partition_folder(partition)
        name = f".part-{fingerprint[:FOLDER_CHARS]}" if resumes else f".tmp-{uuid.uuid4().hex[:12]}"
        with writing(self.root):
            parent.mkdir(parents=True, exist_ok=True)
            for left in parent.glob(".tmp-*"):
                shutil.rmtree(left)  # of a process that died: we hold the partition's lock
            (parent / name).mkdir(exist_ok=resumes)
        return parent / name

    def commit(self, temporary: Path, record: Record) -> Record:
        """Hash, sync and rename what was written, its record last.

        When the folder exists (made again by force, for changed code, or after damage) and the bytes are the
        same, only the record is renewed; otherwise the new bytes take its place.
        """
        with writing(self.root):
            record.files = _hash_and_sync(temporary)
            record.digest = digest_files({name: entry.sha256 for name, entry in record.files.items()})
            folder = self.folder_of(record)
            old = read_record(folder)
            if old is not None and old.digest == record.digest and not self.missing(old):
                shutil.rmtree(temporary)
            else:
                if folder.exists():
                    # The record goes first: at no moment is there a record with other bytes than its own.
                    (folder / RECORD).unlink(missing_ok=True)
                    shutil.rmtree(folder)
                temporary.rename(folder)
                sync_folder(folder.parent)
            # Record last: it says that the partition is whole.
            self.write_record(record)
        return record

    def write_record(self, record: Record) -> None:
        """Put a record into its folder, whole or not at all."""
        text = record.model_dump_json(indent=1) + "\n"
        write_atomically(self.folder_of(record) / RECORD, text.encode())


def read_record(folder: Path) -> Record | None:
    """The record in a folder; None where there is none or it cannot be understood."""
    try:
        data = (folder / RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return Record.model_validate_json(data)
    except ValidationError:
        log.warning("%s is not a record; its partition counts as not made", folder / RECORD)
        return None


def missing_files(folder: Path | str, sizes: dict[str, int]) -> list[str]:
    """Files that are not there or have another size."""
    problems = []
    for name, size in sizes.items():
        try:
            found = os.stat(f"{folder}/{name}").st_size  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if found != size:
            problems.append(f"{name} has {found} bytes, not {size}")
    return problems


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn what a disk says into a message for the user."""
    try:
        yield
    except OSError as error:
        place = error.filename or root
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room and run the same command again; nothing half-written is kept"
            raise UserError("there is no space left on the disk", folder=root, hint=hint) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError("the data root cannot be written", path=place, cause=error.strerror) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            hint = "remove it, or set STILLROOM_DATA to another folder"
            raise UserError("a file stands where a folder is needed", path=place, hint=hint) from error
        raise


def _hash_and_sync(folder: Path) -> dict[str, FileEntry]:
    """Every file below the folder, hashed and on the disk."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        assert not path.is_symlink(), f"{name}: a partition holds its own bytes, no links"
        if path.is_dir():
            continue
        assert name != RECORD, "a stage does not write the record"
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        entries[name] = FileEntry(bytes=path.stat().st_size, sha256=digest_file(path))
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(place)
    return entries
