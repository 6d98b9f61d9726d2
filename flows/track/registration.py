"""Registration of a student in MLflow: a model with its own signature, input example, weights and code."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.utils import logging_utils

from data_catalog.config.places import PROJECT
from data_catalog.config.settings import Settings
from data_catalog.store.catalog import Catalog, Entry
from flows.track.mlflow_runs import Tracker
from flows.track.student_model import COLUMNS
from tasks.student.export import save_export

NEWEST = "newest"  # alias of the version that was registered last; MLflow keeps `latest` to itself
CODE = ("stillroom.py", "data_catalog", "models", "tasks")  # modules that the student's code imports
NEEDS = (  # distributions that this code imports
    *("huggingface_hub", "mlflow", "numpy", "pandas", "pillow", "pyarrow", "pydantic", "pyyaml"),
    *("safetensors", "scipy", "torch", "transformers"),
)


def register(tracker: Tracker, settings: Settings, catalog: Catalog, entry: Entry) -> None:
    """Log a student of the store in the tracker's run, and register it as the profile's newest."""
    from tasks.student.api import Student
    from tasks.student.companions import find_companions
    from tasks.training.student_files import load_student

    mlflow.set_tracking_uri(tracker.uri)
    student = Student(load_student(catalog.folder(entry)), find_companions(settings), settings)
    with tempfile.TemporaryDirectory(dir=catalog.store.root, prefix=".tmp-") as scratch:
        export = Path(scratch) / "student"
        save_export(student, export, catalog, entry.digest)
        code, name = copy_code(Path(scratch)), f"stillroom-{settings.profile}"

        def log_model() -> None:
            with mlflow.start_run(run_id=tracker.run_id):
                version = log_student(export, code, entry.digest, name).registered_model_version
            about = f"Students of the profile {settings.profile}: `models:/{name}@{NEWEST}` is the one registered last."
            tracker.client.update_registered_model(name, about)
            tracker.client.set_registered_model_alias(name, NEWEST, version)
            tracker.client.update_model_version(name, version, f"Student {entry.digest[:8]}, not evaluated yet")

        tracker.tell("registered models", log_model)


def log_student(export: Path, code: list[str], digest: str, registered_name: str | None = None) -> Any:
    """Log an exported student in the active run. Returns MLflow's description of the model."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = Schema([ColSpec(kind, name) for name, kind in COLUMNS.items()])
    signature = ModelSignature(inputs=inputs, outputs=Schema([ColSpec("binary", "image")]))
    with warnings.catch_warnings(), _without_prints():
        warnings.filterwarnings("ignore", module="mlflow")
        return mlflow.pyfunc.log_model(
            name="student",
            python_model=str(Path(__file__).with_name("student_model.py")),
            artifacts={"student": str(export)},
            code_paths=code,
            signature=signature,
            input_example=example(),
            pip_requirements=[f"{name}=={version(name)}" for name in NEEDS],
            registered_model_name=registered_name,
            tags={"stillroom.student.digest": digest},
        )


@contextmanager
def _without_prints() -> Iterator[None]:
    """Keep MLflow from printing past every logger that it registers a model."""
    logging_utils.disable_logging()
    try:
        yield
    finally:
        logging_utils.enable_logging()


def copy_code(folder: Path) -> list[str]:
    """Copy the code that a model needs, without weights. Returns the paths of the copies."""
    copies = []
    for name in CODE:
        source, target = PROJECT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("weights", "__pycache__", "lab"))
        else:
            shutil.copyfile(source, target)
        copies.append(str(target))
    return copies


def example() -> pd.DataFrame:
    """Return an example input: a portrait of the procedural world, from the front and from a side."""
    from data_catalog.samples.encoding import encode_png
    from models import procedural
    from models.camera import orbit_label
    from models.pixels import to_levels

    rgb = procedural.render(procedural.portrait(0), orbit_label(0.0, 0.0)[0], 64).rgb
    png = encode_png(to_levels(rgb))
    return pd.DataFrame(
        {"image": [png] * 2, "prompt": ["make the hair red"] * 2, "yaw": [0.0, 0.3], "pitch": [0.0, 0.1]}
    )
