"""Store: one folder for each partition and fingerprint. It is whole exactly when it holds a `record.json`."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from data_catalog.config.disk_errors import FULL, disk_mistake, no_space, temporary_folder
from data_catalog.config.errors import UserError
from data_catalog.store.fingerprint import digest_file, digest_files, sync_folder, write_atomically
from data_catalog.store.record import FileEntry, Record
from data_catalog.store.stage import Partition

log = logging.getLogger(__name__)

RECORD = "record.json"
FOLDER_CHARS = 16  # characters of the fingerprint in a folder's name
FINGERPRINT = re.compile(rf"[0-9a-f]{{{FOLDER_CHARS}}}")
NEARLY_NOTHING = 1 << 16  # bytes; a disk with less is full
DISK_FULL = (*FULL, errno.EFBIG)


class Store:
    """Partitions below `root/store`. Reading never writes; writing happens between `lock` and `commit`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.folder_of_all = self.root / "store"

    def partition_folder(self, partition: Partition) -> Path:
        """The folder of all fingerprints of a partition."""
        return self.folder_of_all / partition.key

    def folder(self, partition: Partition, fingerprint: str) -> Path:
        """Return the folder of a partition under a fingerprint."""
        return self.partition_folder(partition) / fingerprint[:FOLDER_CHARS]

    def find(self, partition: Partition, fingerprint: str) -> Record | None:
        """The record of exactly this partition and fingerprint, or None."""
        record = read_record(self.folder(partition, fingerprint))
        honest = record is not None and (record.partition, record.fingerprint) == (partition.key, fingerprint)
        return record if honest else None

    def folder_of(self, record: Record) -> Path:
        """Return the folder of a record's files."""
        return self.folder(Partition.parse(record.partition), record.fingerprint)

    def record_folders(self) -> Iterator[Path]:
        """Folders that hold a record, readable or not, in order."""
        return (folder for folder, recorded in self.folders() if recorded)

    def folders(self) -> Iterator[tuple[Path, bool]]:
        """Folders with the name of a fingerprint or with a record, in order, and whether they hold a record."""
        for current, folders, names in os.walk(self.folder_of_all):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if RECORD in names or FINGERPRINT.fullmatch(os.path.basename(current)):  # noqa: PTH119
                folders.clear()
                yield Path(current), RECORD in names

    def missing(self, record: Record) -> list[str]:
        """List missing files and files of another size; contents are checked by `verify`."""
        return look_at_files(self.folder_of(record), {name: (e.bytes, 0) for name, e in record.files.items()})[0]

    def lock_file(self, place: str) -> Path:
        """Lock file of a partition; created when it is first worked on."""
        return self.root / "catalog" / "locks" / (place.replace("/", "--") + ".lock")

    @contextmanager
    def lock(self, partition: Partition, fingerprint: str) -> Iterator[None]:
        """Lock a partition under a fingerprint against other processes. The lock of a dead process is free."""
        from filelock import FileLock, Timeout

        path = self.lock_file(f"{partition.key}/{fingerprint[:FOLDER_CHARS]}")
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

    @contextmanager
    def lock_if_free(self, place: str) -> Iterator[bool]:
        """Try to lock a place; yields whether it succeeded."""
        from filelock import FileLock, Timeout

        path = self.lock_file(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def is_held(self, place: str) -> bool:
        """Whether a live process holds the lock of a place."""
        if not self.lock_file(place).exists():
            return False
        with self.lock_if_free(place) as free:
            return not free

    def begin(self, partition: Partition, fingerprint: str) -> Path:
        """Return an empty temporary folder. Leftovers of a dead process under the same fingerprint are removed."""
        parent = self.partition_folder(partition)
        folder = parent / _temporary_name(fingerprint)
        with writing(self.root):
            for left in parent.glob(f".tmp-{fingerprint[:FOLDER_CHARS]}-*"):
                shutil.rmtree(left)  # from a process that died: we hold its lock
            folder.mkdir(parents=True)
        return folder

    def working(self, partition: Partition, fingerprint: str) -> Path:
        """Return the folder for checkpoints of this fingerprint, with those of an interrupted attempt."""
        folder = self.partition_folder(partition) / f".part-{fingerprint[:FOLDER_CHARS]}"
        with writing(self.root):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, temporary: Path, record: Record) -> Record:
        """Hash, sync and rename the files, the record last. Files that the record knows are hashed already.

        New files replace an existing folder (forced, changed code, or damage), even if the old record promises the
        same bytes: the files on the disk may differ from it.
        """
        with writing(self.root):
            record.files = _hash_and_sync(temporary, record.files)
            record.digest = digest_files({name: entry.sha256 for name, entry in record.files.items()})
            folder = self.folder_of(record)
            replaced = folder.with_name(_temporary_name(record.fingerprint))
            if folder.exists():
                # Remove the record first: at no moment may it stand beside other bytes than its own.
                (folder / RECORD).unlink(missing_ok=True)
                folder.rename(replaced)
            temporary.rename(folder)
            sync_folder(folder.parent)
            # Record last: it means that the partition is whole.
            try:
                self.write_record(record)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)  # without a record it cannot be completed
                raise
            shutil.rmtree(replaced, ignore_errors=True)  # leftovers are removed by the next `begin`
        return record

    def discard(self, partition: Partition, name: str) -> bool:
        """Remove the leftovers of an unfinished attempt. A folder with a record is kept."""
        with self.lock(partition, name), writing(self.root):
            folder = self.partition_folder(partition) / name
            if (folder / RECORD).exists() or not folder.is_dir():
                return False
            shutil.rmtree(folder)
        return True

    def write_record(self, record: Record) -> None:
        """Write a record into its folder, atomically."""
        record.seal = record.sealing()
        text = record.model_dump_json(indent=1) + "\n"
        write_atomically(self.folder_of(record) / RECORD, text.encode())


def _temporary_name(fingerprint: str) -> str:
    return f".tmp-{fingerprint[:FOLDER_CHARS]}-{uuid.uuid4().hex[:12]}"


def read_record(folder: Path) -> Record | None:
    """Read the record in a folder; None if there is none, or it is unreadable or not honest."""
    record = parse_record(folder)
    if record is not None and not record.honest:
        log.warning("%s is not as it was written; its partition counts as not made", folder / RECORD)
        return None
    return record


def parse_record(folder: Path) -> Record | None:
    """Read a folder's record whether honest or not; None if it cannot be parsed."""
    try:
        data = (folder / RECORD).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        data = b""
    try:
        return Record.model_validate_json(data)
    except ValidationError:
        log.warning("%s is not a record; its partition counts as not made", folder / RECORD)
        return None


def look_at_files(folder: Path | str, files: Mapping[str, Sequence[int]]) -> tuple[list[str], list[str]]:
    """Compare files with their expected [bytes, mtime in ns]; returns (missing or resized, touched)."""
    problems, touched = [], []
    for name, (size, mtime) in files.items():
        try:
            found = os.stat(f"{folder}/{name}")  # noqa: PTH116 - half the time of Path.stat
        except OSError:
            problems.append(f"{name} is missing")
            continue
        if found.st_size != size:
            problems.append(f"{name} has {found.st_size} bytes, not {size}")
        elif found.st_mtime_ns != mtime:
            touched.append(name)
    return problems, touched


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn an error of the disk into a message for the user."""
    try:
        yield
    except OSError as error:
        place = error.filename or root
        if error.errno in FULL:
            raise disk_mistake(error, root) or no_space(root) from error
        if error.errno == errno.EFBIG:
            hint = "raise the limit (ulimit -f) and run the same command again; no partial files are kept"
            raise UserError("a file would be larger than this process may write", path=place, hint=hint) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "make it writable, or set STILLROOM_DATA to another folder"
            raise UserError("the data root cannot be written", path=place, cause=error.strerror, hint=hint) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            hint = "set STILLROOM_DATA to another folder, or move this file away"
            raise UserError("a file stands where a folder is needed", path=place, hint=hint) from error
        raise


def full_disk(root: Path, error: BaseException) -> Path | None:
    """Return the data root or the folder of temporary files, if its full disk is the cause of an error.

    Not every library reports why a write failed.
    """
    if shutil.disk_usage(root).free < NEARLY_NOTHING:
        return root
    temporary = temporary_folder()
    speaks_of_it = any(words in str(error).lower() for words in ("no space left", "disk is full", "quota exceeded"))
    return temporary if temporary is not None and speaks_of_it else None


def check_writable(root: Path) -> None:
    """Check that a data root can be written, before any work."""
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".tmp-{uuid.uuid4().hex[:12]}"
        probe.touch()
        probe.unlink()


def _hash_and_sync(folder: Path, hashed: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """Sync every file below the folder and return its digest; digests taken while writing are reused.

    Whoever may read the folder may read its files.
    """
    entries = {}
    mode = folder.stat().st_mode & 0o666  # as the umask has it; safetensors lets only the owner read
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ValueError(f"{name}: a partition holds its own bytes, no links")
        if path.is_dir():
            continue
        if name == RECORD:
            raise ValueError("a stage does not write the record")
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        entries[name] = hashed.get(name) or FileEntry(bytes=path.stat().st_size, sha256=digest_file(path))
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(place)
    return entries
