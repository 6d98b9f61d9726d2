"""`stillroom export`: a student in the layout of the Hugging Face hub, or a dataset in that of EG3D or 3DPE."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.config.errors import UserError
from data_catalog.products.keys import DATASET, EVALUATION, STUDENT
from data_catalog.products.names import check_target, note_export
from data_catalog.products.students import student_entry
from data_catalog.store.catalog import Catalog
from data_catalog.workspace import Workspace

if TYPE_CHECKING:
    from tasks.student.api import Student

SHOWN = ("iterations", "batch_size", "lr", "lr_transformer", "image_prompt_fraction", "seed")  # settings on the card


def export_student(target: Path, name: str | None, workspace: Workspace) -> dict[str, Any]:
    """Write the student into a new folder, which appears when it is complete; the data root notes the export."""
    check_target(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is not empty", hint="name a folder that is not there yet")
    from tasks.student.api import Student, find_student

    entry = find_student(workspace.catalog, name, workspace.settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".part-{target.name}-") as part:
        whole = Path(part) / "student"
        student = Student.from_workspace(workspace, entry.digest)
        save_export(student, whole, workspace.catalog, entry.digest, target)
        if target.exists():
            target.rmdir()
        shutil.move(whole, target)
    note_export(workspace.root, entry.digest, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return {
        "folder": str(target),
        "student": entry.digest,
        "files": [str(path.relative_to(target)) for path in files],
        "bytes": sum(path.stat().st_size for path in files),
    }


def save_export(
    student: "Student", folder: Path, catalog: Catalog, digest: str, shown_folder: Path | None = None
) -> None:
    """Write the files of an export; the card is filled from the store."""
    entry = student_entry(catalog, digest)
    record = catalog.read(entry)
    training = json.loads((catalog.folder(entry) / "training.json").read_text(encoding="utf-8"))
    facts = {
        "folder": shown_folder,
        "digest": entry.digest,
        "dataset": record.fingerprint_inputs.get("inputs", {}).get(DATASET, ""),
        "styles": training["styles"],
        "training": {name: training["settings"][name] for name in SHOWN if name in training["settings"]},
        "imported": training.get("imported"),
        "metrics": {name: value for name, value in record.metrics.items() if name.startswith("val_")},
        "table": find_evaluation(catalog, entry.digest),
    }
    student.save_pretrained(folder, model_card_kwargs=facts)


def find_evaluation(catalog: Catalog, digest: str) -> list[dict[str, Any]]:
    """The rows of the newest evaluation of a student; none where it was not evaluated."""
    for entry in catalog.history(EVALUATION):
        if catalog.read(entry).fingerprint_inputs.get("inputs", {}).get(STUDENT) == digest:
            document = json.loads((catalog.folder(entry) / "table.json").read_text(encoding="utf-8"))
            rows: list[dict[str, Any]] = document["table"]
            return rows
    return []
