"""Carry out one job of a plan: run the stage's function in a temporary folder and commit what it wrote.

Jobs pickle, so that a process of a pool, or of a Dask worker, can execute them; only the data root is shared.
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_catalog.errors import UserError
from data_catalog.record import Record, Summary
from data_catalog.settings import Settings
from data_catalog.stage import Input, Partition, Work
from data_catalog.store import RECORD, Store

log = logging.getLogger(__name__)


@dataclass
class Job:
    """A partition to make, with all that its stage's function is given.

    `stale` is the (mtime_ns, bytes) of a record that the plan found not good enough (damaged, made by other
    code, made again by force), or None: a record that differs from it was made by another process meanwhile.
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
    """Make the partition, or take it from a process that made it since the plan. Returns its record."""
    store = Store(root)
    with store.lock(job.partition):
        made = _made_meanwhile(job, store)
        if made is not None:
            log.info("%s was made by another process", job.key)
            return made
        temporary = store.begin(job.partition, job.fingerprint, job.resumes)
        try:
            record = _run(job, root, temporary)
            return store.commit(temporary, record)
        except BaseException:
            # A killed process leaves the folder to the next one; an exception need not.
            if not job.resumes:
                shutil.rmtree(temporary, ignore_errors=True)
            raise


def _made_meanwhile(job: Job, store: Store) -> Record | None:
    record = store.find(job.partition, job.fingerprint)
    if record is None or store.missing(record):
        return None
    status = (store.folder(job.partition, job.fingerprint) / RECORD).stat()
    return None if (status.st_mtime_ns, status.st_size) == job.stale else record


def _run(job: Job, root: Path, folder: Path) -> Record:
    work = Work(job.partition, job.inputs, job.settings, job.sources, folder, root)
    started = time.perf_counter()
    try:
        summary = job.run(work)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        hint = "make room and run the same command again; nothing half-written is kept"
        raise UserError("there is no space left on the disk", folder=root, hint=hint) from error
    return Record(
        partition=job.key,
        stage=job.partition.stage,
        version=job.version,
        fingerprint=job.fingerprint,
        fingerprint_inputs=job.fingerprint_inputs,
        digest="",  # of the files, at commit
        files={},
        samples=summary.samples,
        rejected=summary.rejected,
        metrics=summary.metrics,
        parts=summary.parts,
        seconds=round(time.perf_counter() - started, 4),
        source_digest=job.source_digest,
        device=job.settings.run.device,
    )
