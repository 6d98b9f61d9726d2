"""Verification of the store, with notes of the damage."""

import time
from dataclasses import asdict
from typing import Any

from data_catalog.workspace import Workspace


def verify_store(workspace: Workspace) -> dict[str, Any]:
    """Hash everything below the data root again, note the damage for later plans, and check MLflow's locations."""
    from data_catalog.care.verify import Damage, note_damage, verify
    from flows.track.mlflow_database import DATABASE, FOLDER, database_path, look_at_locations, open_database

    started = time.perf_counter()
    root = workspace.root
    seen = verify(root)
    note_damage(root, seen.damaged)
    if database_path(root).exists():
        open_database(root)  # in a moved data root, MLflow's locations are updated
    lost = [Damage("mlflow", str(root / FOLDER), DATABASE, problem) for problem in look_at_locations(root)]
    return {
        "checked": seen.records,
        "files": seen.files,
        "damaged": [asdict(damage) for damage in [*seen.damaged, *lost]],
        "seconds": round(time.perf_counter() - started, 3),
    }
