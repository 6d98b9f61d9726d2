"""The student as an MLflow model: pictures and prompts in a table in, edited pictures in a table out.

MLflow runs this file to load the model ("models from code"), so nothing is pickled. The weights stay in the
store; the model's configuration holds their address and digest.
"""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd

from data_catalog.settings import Settings, load_settings

if TYPE_CHECKING:
    from flows.tracking import Tracker

COLUMNS = {"image": "binary", "prompt": "string", "yaw": "double", "pitch": "double"}


class StudentModel(mlflow.pyfunc.PythonModel):
    """Each row: `image` (an encoded aligned portrait), `prompt`, `yaw` and `pitch` of the view in radians."""

    def load_context(self, context: Any) -> None:
        """Read the student from the store, as the configuration says."""
        from tasks.student_files import load_student

        config = context.model_config
        self.settings = load_settings(config["profile"], list(config["overrides"]))
        self.student = load_student(Path(config["folder"]), self.settings.run.device)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """A PNG of the edited head for each row."""
        return pd.DataFrame({"image": [self._edit(row) for row in model_input.to_dict("records")]})

    def _edit(self, row: dict[str, Any]) -> bytes:
        import numpy as np
        from PIL import Image

        from data_catalog.encoding import encode_png
        from models.camera import orbit_label
        from tasks.apply import edit_head

        size = self.settings.align.size
        with Image.open(io.BytesIO(row["image"])) as picture:
            portrait = np.array(picture.convert("RGB").resize((size, size)))
        head = edit_head(self.student, portrait, row["prompt"], None, self.settings)
        return encode_png(head.look(orbit_label(row["yaw"], row["pitch"]))[0])


def register(tracker: "Tracker", settings: Settings, folder: Path, digest: str) -> None:
    """Log the student with signature and input example, and register it as the profile's newest."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = Schema([ColSpec(kind, name) for name, kind in COLUMNS.items()])
    signature = ModelSignature(inputs=inputs, outputs=Schema([ColSpec("binary", "image")]))
    mlflow.set_tracking_uri(tracker.uri)
    config: dict[str, Any] = {"folder": str(folder), "digest": digest, "profile": settings.profile}
    config["overrides"] = [f"align.size={settings.align.size}"]
    with mlflow.start_run(run_id=tracker.run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="mlflow")
        mlflow.pyfunc.log_model(
            name="student",
            python_model=str(Path(__file__)),
            model_config=config,
            signature=signature,
            input_example=example(settings),
            pip_requirements=["stillroom"],
            registered_model_name=f"stillroom-{settings.profile}",
            tags={"stillroom.student.digest": digest},
        )


def example(settings: Settings) -> pd.DataFrame:
    """A grey picture; what counts are the columns."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (settings.align.size, settings.align.size), (127, 127, 127)).save(buffer, "PNG")
    return pd.DataFrame({"image": [buffer.getvalue()], "prompt": ["Make the hair red"], "yaw": [0.0], "pitch": [0.0]})


mlflow.models.set_model(StudentModel())
