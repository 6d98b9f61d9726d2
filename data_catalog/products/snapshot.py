"""Dataset snapshots: samples with their manifest, named by content; a file names the newest.

    datasets/<digest[:16]>/   samples.parquet, manifest.json, and documents (README.md, report.html)
    datasets/latest           the digest of the newest snapshot

The digest covers samples and manifest. Documents may be renewed: they only tell what the other two hold.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_catalog.config.errors import UserError
from data_catalog.samples.encoding import encode_json
from data_catalog.store.fingerprint import digest_file, digest_files, sync_folder, write_atomically
from data_catalog.store.store import writing

SAMPLES, MANIFEST = "samples.parquet", "manifest.json"
DOCUMENTS = ("README.md", "report.html", "rejected.html")  # of a snapshot that a build published
FOLDER_CHARS = 16  # characters of the digest in a folder's name
ROW_GROUP = 65_536  # rows; a query by style and score skips groups that cannot match


@dataclass(frozen=True)
class Snapshot:
    """Stored dataset."""

    digest: str
    folder: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """Return the manifest, as the snapshot's author wrote it."""
        manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest

    def samples(self, columns: list[str] | None = None, filters: Any = None) -> pa.Table:
        """Return the samples, or some columns of those that pass pyarrow `filters`."""
        return pq.read_table(self.folder / SAMPLES, columns=columns, filters=filters)


def write_samples(path: Path, rows: pa.Table) -> None:
    """Write a row for each sample, sorted by `key`. Equal rows give equal bytes."""
    assert "key" in rows.column_names, rows.column_names
    ordered = rows.sort_by("key").combine_chunks().replace_schema_metadata(None)
    keys = ordered.column("key")
    if len(keys.unique()) != len(keys):
        raise ValueError("a key occurs twice")
    pq.write_table(ordered, path, compression="zstd", row_group_size=ROW_GROUP)


def write_snapshot_files(folder: Path, rows: pa.Table, manifest: Mapping[str, Any]) -> str:
    """Write samples and manifest into a folder; returns the digest. The manifest holds neither date nor path."""
    write_samples(folder / SAMPLES, rows)
    (folder / MANIFEST).write_bytes(encode_json(manifest))
    return snapshot_digest(folder)


def snapshot_digest(folder: Path) -> str:
    """Digest of the samples and the manifest in a folder."""
    return digest_files({name: digest_file(folder / name) for name in (SAMPLES, MANIFEST)})


def publish(root: Path, source: Path, documents: Mapping[str, bytes] | None = None, as_latest: bool = True) -> Snapshot:
    """Copy the samples and manifest in `source` into the datasets, with documents, and mark them as the latest.

    Publishing the same content again replaces only the documents, and repairs a damaged snapshot.
    """
    digest = snapshot_digest(source)
    snapshot = Snapshot(digest, root / "datasets" / digest[:FOLDER_CHARS])
    with writing(root):
        if snapshot.folder.exists():
            mend_snapshot(snapshot.folder, source)
        else:
            temporary = root / "datasets" / f".tmp-{uuid.uuid4().hex[:12]}"
            try:
                temporary.mkdir(parents=True)
                for name in (SAMPLES, MANIFEST):
                    _copy_synced(source / name, temporary / name)
                sync_folder(temporary)
                _rename_unless_there(temporary, snapshot.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        for name, content in sorted((documents or {}).items()):
            write_atomically(snapshot.folder / name, content)
        if as_latest:
            mark_latest(root, digest)
    return snapshot


def mark_latest(root: Path, digest: str) -> None:
    """Make a published snapshot the latest."""
    with writing(root):
        write_atomically(root / "datasets" / "latest", f"{digest}\n".encode())


def find_whole(root: Path, digest: str) -> Snapshot | None:
    """Find the snapshot with exactly this content; None where it is not published, or damaged."""
    folder = root / "datasets" / digest[:FOLDER_CHARS]
    try:
        return Snapshot(digest, folder) if snapshot_digest(folder) == digest else None
    except OSError:
        return None


def mend_snapshot(folder: Path, source: Path) -> None:
    """Restore samples and manifest where they differ from the partition that they were copied from."""
    for name in (SAMPLES, MANIFEST):
        if not (folder / name).is_file() or digest_file(folder / name) != digest_file(source / name):
            temporary = folder / f".{name}.{uuid.uuid4().hex[:12]}"
            try:
                _copy_synced(source / name, temporary)
                temporary.replace(folder / name)
            finally:
                temporary.unlink(missing_ok=True)
    sync_folder(folder)


def list_snapshots(root: Path) -> list[Snapshot]:
    """List all snapshots, the newest last."""
    folders = [path.parent for path in (root / "datasets").glob(f"[!.]*/{MANIFEST}")]
    folders.sort(key=lambda folder: ((folder / MANIFEST).stat().st_mtime_ns, folder.name))
    return [Snapshot(snapshot_digest(folder), folder) for folder in folders]


def open_snapshot(root: Path, digest: str | None = None) -> Snapshot:
    """Open the snapshot whose digest starts with `digest`, or the latest."""
    latest = root / "datasets" / "latest"
    if digest is None:
        if not latest.is_file():
            raise UserError("there is no dataset yet", root=root, hint="stillroom build")
        digest = latest.read_text(encoding="utf-8").strip()
    prefix = digest[:FOLDER_CHARS]
    found = sorted(path.parent for path in (root / "datasets").glob(f"[!.]*/{MANIFEST}"))
    matches = [folder for folder in found if prefix and folder.name.startswith(prefix)]
    if len(matches) != 1:
        word = "two datasets start" if matches else "no dataset starts"
        names = ", ".join(folder.name for folder in found) or "none"
        raise UserError(f"{word} with the digest '{digest}'", root=root, datasets=names, hint="stillroom build")
    whole = snapshot_digest(matches[0])
    if not whole.startswith(digest):
        raise UserError(
            f"the dataset {matches[0].name} does not match its name",
            folder=matches[0],
            expected=digest,
            found=whole,
            hint="stillroom build    (publishes it again)",
        )
    return Snapshot(whole, matches[0])


def _copy_synced(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())


def _rename_unless_there(temporary: Path, folder: Path) -> None:
    """Rename, unless another process has published the same content first: its bytes are the same."""
    try:
        temporary.rename(folder)
    except OSError:
        if not (folder / MANIFEST).exists():
            raise
    sync_folder(folder.parent)
