"""Student as an MLflow model: pictures and prompts in a table in, edited pictures in a table out.

MLflow runs this file to load the model ("models from code"), so nothing is pickled. Weights and code are in the
model itself: it loads without the store and the flows. `flows/track/registration.py` logs it.
"""

import io
from typing import Any

import mlflow
import pandas as pd

COLUMNS = {"image": "binary", "prompt": "string", "yaw": "double", "pitch": "double"}


class StudentModel(mlflow.pyfunc.PythonModel):
    """Model whose input rows have `image` (an encoded portrait), `prompt`, `yaw` and `pitch` of the view in radians.

    Returns `image`, a PNG of the edited head for each row. Rows of one portrait and prompt share a triplane.
    """

    def load_context(self, context: Any) -> None:
        """Read the student in the model."""
        from stillroom import Student

        self.student = Student.load(context.artifacts["student"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return a PNG of the edited head for each row."""
        return pd.DataFrame({"image": [self._edit(row) for row in model_input.to_dict("records")]})

    def _edit(self, row: dict[str, Any]) -> bytes:
        head = self.student.edit(bytes(row["image"]), row["prompt"])
        buffer = io.BytesIO()
        head.render(float(row["yaw"]), float(row["pitch"])).save(buffer, "PNG")
        return buffer.getvalue()


mlflow.models.set_model(StudentModel())
