"""`stillroom export`: a student in the layout of the Hugging Face hub, or a dataset in that of EG3D or 3DPE."""

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_catalog.catalog import Catalog
from data_catalog.errors import UserError
from data_catalog.names import note_export
from data_catalog.places import data_root
from data_catalog.store import Store
from data_catalog.students import STUDENT, open_dataset, student_entry

if TYPE_CHECKING:
    from tasks.student.api import Student

SHOWN = ("iterations", "batch_size", "lr", "lr_transformer", "image_prompt_fraction", "seed")  # settings on the card


def export_dataset(layout: str, target: Path, name: str) -> dict[str, Any]:
    """Write a dataset into a new folder, or a new file where the name ends in .zip; it appears when it is whole.

    layout: 3dpe or eg3d.  name: the dataset's digest or its beginning, the name of its student, or latest.
    """
    if target.exists() and (not target.is_dir() or target.suffix == ".zip" or any(target.iterdir())):
        raise UserError(f"{target} is there already", hint="name a folder or a .zip that is not there yet")
    from tasks.datasets.export import write_layout

    root = data_root()
    snapshot = open_dataset(root, name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".part-{target.name}-") as part:
        whole = Path(part) / target.name
        if target.suffix == ".zip":
            with zipfile.ZipFile(whole, "w") as archive:
                counts = write_layout(layout, snapshot, root, lambda name, data: _write_member(archive, name, data))
        else:
            counts = write_layout(layout, snapshot, root, lambda name, data: _write_below(whole, name, data))
        if target.exists():
            target.rmdir()
        shutil.move(whole, target)
    return {"path": str(target), "format": layout, "dataset": snapshot.digest, **counts}


def _write_below(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Stored, since pictures are compressed already, and without a date: equal datasets give equal archives."""
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o644 << 16  # without, nobody may read what is unpacked
    archive.writestr(member, data)


def export_student(target: Path, student: str, profile: str, overrides: list[str]) -> dict[str, Any]:
    """Write a student into a new folder; the folder appears when it is whole, and the data root remembers it."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} is not empty", hint="name a folder that is not there yet")
    from tasks.student.api import Student

    root = data_root()
    entry = student_entry(Catalog(Store(root)), student)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".part-{target.name}-") as part:
        whole = Path(part) / "student"
        save_export(Student.load(entry.digest, profile, overrides), whole, entry.digest, target)
        if target.exists():
            target.rmdir()
        shutil.move(whole, target)
    note_export(root, entry.digest, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return {
        "folder": str(target),
        "student": entry.digest,
        "files": [str(path.relative_to(target)) for path in files],
        "bytes": sum(path.stat().st_size for path in files),
    }


def save_export(student: "Student", folder: Path, digest: str, shown_folder: Path | None = None) -> None:
    """The files of an export, its card filled from what the store knows of the student."""
    catalog = Catalog(Store(data_root()))
    entry = student_entry(catalog, digest)
    record = catalog.read(entry)
    training = json.loads((catalog.folder(entry) / "training.json").read_text(encoding="utf-8"))
    facts = {
        "folder": shown_folder,
        "digest": entry.digest,
        "dataset": record.fingerprint_inputs.get("inputs", {}).get("dataset/all", ""),
        "styles": training["styles"],
        "training": {name: training["settings"][name] for name in SHOWN},
        "metrics": {name: value for name, value in record.metrics.items() if name.startswith("val_")},
        "table": find_evaluation(catalog, entry.digest),
    }
    student.save_pretrained(folder, model_card_kwargs=facts)


def find_evaluation(catalog: Catalog, digest: str) -> list[dict[str, Any]]:
    """The rows of the newest evaluation of a student; none where it was not evaluated."""
    for entry in catalog.history("evaluate/all"):
        if catalog.read(entry).fingerprint_inputs.get("inputs", {}).get(STUDENT) == digest:
            document = json.loads((catalog.folder(entry) / "table.json").read_text(encoding="utf-8"))
            rows: list[dict[str, Any]] = document["table"]
            return rows
    return []
