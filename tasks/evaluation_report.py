"""What a report shows of an evaluation: the table, and per style the student beside its teachers and the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLE = "table.json"
STUDENT = "student"


def describe_evaluation(folder: Path) -> dict[str, Any]:
    """The evaluation in `folder` as the template `evaluation.html.j2` wants it."""
    table = json.loads((folder / TABLE).read_text(encoding="utf-8"))["table"]
    return {"table": table}
