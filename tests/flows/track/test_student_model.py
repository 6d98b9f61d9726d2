"""The student as an MLflow model: complete, and loadable where the project is not."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import mlflow
import numpy as np
import pytest

from data_catalog.samples.encoding import decode_rgb
from stillroom import Student
from tests.worlds import pupil

# MLflow warns of its own type hints when its models are imported: hence inside the tests, too.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SCRIPT = """
import pathlib, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
table = mlflow.models.Model.load(sys.argv[1]).load_input_example(sys.argv[1])
edited = model.predict(table)
for number, png in enumerate(edited["image"]):
    pathlib.Path(f"{number}.png").write_bytes(png)
import models, stillroom, tasks
places = [pathlib.Path(module.__file__) for module in (models, tasks, stillroom)]
print("flows" in sys.modules, *(place.is_relative_to(sys.argv[1]) for place in places))
"""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> Path:
    """The model as MLflow keeps it, downloaded."""
    from flows.track.registration import copy_code, log_student

    folder = tmp_path_factory.mktemp("model")
    pupil.student().save_pretrained(folder / "export")
    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("models", (folder / "artifacts").as_uri()))
    printed = io.StringIO()
    with mlflow.start_run(), redirect_stderr(printed):
        logged = log_student(folder / "export", copy_code(folder), "0" * 64, "stillroom-test")
    assert "Created version" not in printed.getvalue()
    return Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(folder / "downloaded")))


def test_the_model_says_what_it_takes_and_gives(model_folder: Path) -> None:
    from flows.track.registration import CODE

    info = mlflow.models.get_model_info(str(model_folder))
    assert info.signature.inputs.input_names() == ["image", "prompt", "yaw", "pitch"]
    assert info.signature.outputs.input_names() == ["image"]
    assert info.saved_input_example_info is not None
    assert {path.name for path in (model_folder / "code").iterdir()} == set(CODE)
    assert not (model_folder / "code" / "models" / "weights").exists()
    requirements = (model_folder / "requirements.txt").read_text(encoding="utf-8")
    assert all("==" in line for line in requirements.split())
    assert "torch==" in requirements


def test_it_loads_in_a_fresh_process_without_the_project(model_folder: Path, tmp_path: Path) -> None:
    from flows.track.registration import example

    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")
    }
    environment["STILLROOM_DATA"] = str(tmp_path / "nowhere")
    command = [sys.executable, "-c", SCRIPT, str(model_folder)]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.split() == ["False", "True", "True", "True"]
    assert not (tmp_path / "nowhere").exists()
    student: Student = pupil.student()
    for number, row in enumerate(example().to_dict("records")):
        expected = np.asarray(student.edit(row["image"], row["prompt"]).render(row["yaw"], row["pitch"]))
        found = decode_rgb((tmp_path / f"{number}.png").read_bytes())
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
