"""`stillroom import-student`: the student that the paper's authors published, in the store like one of ours.

Its record has the file's sha256 in the place of a dataset and settings: what it learned from, its authors know alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.config.errors import UserError
from data_catalog.products.names import check_name, give_name
from data_catalog.samples.encoding import encode_json
from data_catalog.store.fingerprint import digest_json
from data_catalog.store.record import Record
from data_catalog.store.stage import Partition
from data_catalog.store.store import Store
from data_catalog.workspace import Workspace
from tasks.distill import STAGE, TRAINING
from tasks.training.student_files import save_student

if TYPE_CHECKING:
    from models.three_d.student import Student


def import_student(file: Path, name: str, workspace: Workspace) -> dict[str, Any]:
    """Read 3DPE's `3dpe.pt`, put it into the store and name it. The same file again gives the same student.

    Raises UserError for a profile of another world, and WeightsError for a file of another layout.
    """
    check_name(name)
    if workspace.settings.world != "paper":
        raise UserError(
            "the authors' student edits photographs, and this profile's world is another",
            profile=workspace.profile,
            hint="stillroom import-student FILE --profile paper",
        )
    if not file.is_file():
        raise UserError("there is no such file", file=file, expected="3dpe.pt of the 3DPE project")
    from models.checkpoints import file_digest
    from models.zoo.public import load_student

    record = store_student(load_student(file), file.name, file_digest(file), workspace)
    give_name(workspace.root, name, record.digest)
    return {"student": record.digest, "name": name, "file": str(file), "bytes": record.bytes}


def store_student(student: Student, file: str, sha256: str, workspace: Workspace) -> Record:
    """Put a student that was read from a file into the store, as the stage distill leaves its own."""
    store, partition = Store(workspace.root), Partition(STAGE.name)
    inputs = {"stage": STAGE.name, "settings": {"imported": sha256}, "inputs": {}}
    fingerprint = digest_json(inputs)
    with store.lock(partition, fingerprint):
        known = store.find(partition, fingerprint)
        if known is not None and not store.missing(known):
            return known
        folder = store.begin(partition, fingerprint)
        try:
            save_student(student, folder)
            world: dict[str, Any] = {"world": workspace.settings.world, "settings": {}, "styles": []}
            (folder / TRAINING).write_bytes(encode_json(world | {"imported": {"file": file, "sha256": sha256}}))
            record = Record(
                partition=partition.key,
                stage=STAGE.name,
                version=STAGE.version,
                fingerprint=fingerprint,
                fingerprint_inputs=inputs,
                digest="",  # computed at commit
                files={},
            )
            record = store.commit(folder, record)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    catalog = workspace.catalog
    catalog.add(record)
    catalog.save()
    return record
