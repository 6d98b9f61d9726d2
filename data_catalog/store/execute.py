"""Carry out a job of a plan: run the stage's function in a temporary folder and commit its files.

Jobs pickle, so that a process of a pool or a Dask worker can execute them; they share only the data root.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_catalog.config.disk_errors import no_space
from data_catalog.config.settings import Settings
from data_catalog.store.heap import kept_memory
from data_catalog.store.record import FileEntry, Record, Summary
from data_catalog.store.stage import Input, Partition, Work
from data_catalog.store.store import DISK_FULL, RECORD, Store, full_disk, read_record, writing

log = logging.getLogger(__name__)


@dataclass
class Job:
    """Partition to make, with all arguments of its stage's function.

    `stale` is the (mtime_ns, bytes) of a record that the plan rejected (damaged, made by other code, or forced), or
    None. A record that differs from it was made by another process meanwhile.
    """

    partition: Partition
    fingerprint: str
    fingerprint_inputs: dict[str, Any]
    version: int
    run: Callable[[Work], Summary]
    resumes: bool
    settings: Settings
    inputs: dict[str, list[Input]]
    sources: dict[str, Path]
    source_digest: str
    stale: tuple[int, int] | None

    @property
    def key(self) -> str:
        return self.partition.key


def execute(job: Job, root: Path) -> Record:
    """Make the partition, or take it over if another process has made it since the plan. Returns its record."""
    store = Store(root)
    with store.lock(job.partition, job.fingerprint):
        made = _made_meanwhile(job, store)
        if made is not None:
            log.info("%s was made by another process", job.key)
            return made
        working = store.working(job.partition, job.fingerprint) if job.resumes else Path()
        temporary = store.begin(job.partition, job.fingerprint)
        try:
            record = store.commit(temporary, _run(job, root, temporary, working))
        except BaseException:
            # A killed process leaves the folder to the next one; an exception removes it.
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        if job.resumes:
            # Only after the record: before it, a kill would lose everything since the first checkpoint.
            shutil.rmtree(working, ignore_errors=True)
        return record


def _made_meanwhile(job: Job, store: Store) -> Record | None:
    record = store.find(job.partition, job.fingerprint)
    if record is None or store.missing(record):
        return None
    status = (store.folder(job.partition, job.fingerprint) / RECORD).stat()
    return None if (status.st_mtime_ns, status.st_size) == job.stale else record


def _find_earlier(job: Job, store: Store) -> list[Input]:
    """Whole makings of the partition by the same version, code, weights and kind of device, newest first."""

    def made_by(record: Record | Job, device: str) -> tuple[object, ...]:
        weights = record.fingerprint_inputs.get("weights")
        return record.version, record.source_digest, weights, device.partition(":")[0]

    now, found = made_by(job, job.settings.run.device), []
    for folder in store.partition_folder(job.partition).iterdir():
        record = read_record(folder)
        if record is None or record.fingerprint == job.fingerprint or store.missing(record):
            continue
        if made_by(record, record.device) == now:
            found.append(Input(job.partition, folder, record.digest, record))
    return sorted(found, key=lambda each: each.record.created, reverse=True)


def _run(job: Job, root: Path, folder: Path, working: Path) -> Record:
    earlier = partial(_find_earlier, job, Store(root))
    work = Work(job.partition, job.inputs, job.settings, job.sources, folder, root, working, earlier)
    started = time.perf_counter()
    try:
        with kept_memory():
            summary = job.run(work)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            with writing(root):
                raise
        if (full := full_disk(root, error)) is not None:  # torch and others set no errno
            raise no_space(full) from error
        raise
    metrics = {name: value for name, value in summary.metrics.items() if math.isfinite(value)}
    if metrics.keys() != summary.metrics.keys():
        log.warning("%s: not a number: %s", job.key, ", ".join(sorted(summary.metrics.keys() - metrics.keys())))
    return Record(
        partition=job.key,
        stage=job.partition.stage,
        version=job.version,
        fingerprint=job.fingerprint,
        fingerprint_inputs=job.fingerprint_inputs,
        digest="",  # computed at commit, as for files that are not hashed yet
        files={
            name: FileEntry(bytes=(folder / name).stat().st_size, sha256=digest)
            for name, digest in summary.sha256.items()
        },
        samples=summary.samples,
        rejected=summary.rejected,
        metrics=metrics,  # JSON has no nan: a record with one could not be read again
        parts=summary.parts,
        seconds=round(time.perf_counter() - started, 4),
        source_digest=job.source_digest,
        device=job.settings.run.device,
    )
