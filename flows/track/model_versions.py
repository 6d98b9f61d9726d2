"""Students among MLflow's registered models, read from our own sqlite without importing MLflow.

A version names its student by the tag `stillroom.student.digest`, its own or that of the run that logged it. Tracking
stores other than an sqlite file are not read.
"""

import logging
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from data_catalog.config.errors import UserError
from data_catalog.config.places import shown_path
from data_catalog.config.settings import Settings
from flows.track.addresses import shown
from flows.track.mlflow_client import database_uri, sqlite_path
from flows.track.mlflow_database import database_path
from flows.track.mlflow_runs import RESULT
from flows.track.mlflow_store import find_store, named_store

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

TAG = "stillroom.student.digest"
DELETED = "Deleted_Internal"  # stage of a deleted version in MLflow
BUSY_S = 10.0  # seconds to wait for the database while another process writes
VERSIONS = f"""
    SELECT v.name, v.version, COALESCE(own.value, run.value)
    FROM model_versions AS v
    LEFT JOIN model_version_tags AS own ON own.name = v.name AND own.version = v.version AND own.key = '{TAG}'
    LEFT JOIN tags AS run ON run.run_uuid = v.run_id AND run.key = '{TAG}'
    WHERE v.current_stage IS NOT '{DELETED}' AND COALESCE(own.value, run.value) IS NOT NULL
    ORDER BY v.name, v.version
"""


@dataclass(frozen=True)
class ModelVersion:
    """Version of a registered model, and the digest of its student."""

    name: str
    version: int
    student: str
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" + "".join(f" @{alias}" for alias in self.aliases)


def model_versions(root: Path, settings: Settings) -> list[ModelVersion]:
    """List versions that hold a student, by name and number; none without an sqlite file of MLflow's."""
    path = _find_database(root, settings)
    if path is None:
        return []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S)) as database:
            found = database.execute(VERSIONS).fetchall()
            aliases = database.execute("SELECT name, version, alias FROM registered_model_aliases").fetchall()
    except sqlite3.Error as error:
        if "no such table" in str(error):  # a store that is being made
            return []
        hint = "end the process that writes to it and try again; move a damaged file away"
        raise UserError("MLflow's database cannot be read", file=shown_path(path), cause=error, hint=hint) from error
    return [
        ModelVersion(name, version, student, tuple(sorted(a for n, v, a in aliases if (n, v) == (name, version))))
        for name, version, student in found
    ]


def _find_database(root: Path, settings: Settings) -> Path | None:
    named = named_store(settings)
    given = named.uri if named is not None else database_uri(database_path(root))
    place = sqlite_path(given)
    if place is None:
        log.warning("models registered in %s are not looked up: it is no sqlite file", shown(given))
        return None
    return place if place.is_file() else None


def log_measures(
    client: "MlflowClient", student: str, results: Mapping[str, float], measures: Mapping[str, float]
) -> None:
    """Log measures of a student with each model version that has it, and with the run that logged that.

    results: those that runs are compared by; the description of the version says them, too.
    """
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    values = {**{f"{RESULT}{name}": value for name, value in results.items()}, **measures}
    told = ", ".join(f"{name} {value:.4g}" for name, value in results.items())
    for each in client.search_model_versions(f"tags.`{TAG}` = '{student}'"):
        model = each.source.removeprefix("models:/") if each.source.startswith("models:/m-") else None
        rows = [Metric(name, value, now, 0, model_id=model, run_id=each.run_id) for name, value in values.items()]
        client.log_batch(each.run_id, metrics=rows)
        client.update_model_version(each.name, each.version, f"Student {student[:8]}, on held-out portraits: {told}")


def move_alias(root: Path, settings: Settings, alias: str, student: str, before: str | None) -> list[str]:
    """Let an alias of MLflow's registered models mean a student. Returns a sentence for each change.

    before: the student that had the name; its versions lose the alias where the new student has none in their model.
    """
    known = model_versions(root, settings)
    newest = {each.name: each for each in known if each.student == student}  # the last version of a name is the newest
    left = [each for each in known if alias in each.aliases and each.student == before and each.name not in newest]
    told = (
        [] if newest else ["no version of a registered model in MLflow holds this student, so no alias was set there"]
    )
    if not newest and not left:
        return told
    client = find_store(root, settings).open_client()
    from mlflow.exceptions import MlflowException

    for each in left:
        client.delete_registered_model_alias(each.name, alias)
        told.append(f"the alias '{alias}' was taken from {each.name} version {each.version}")
    for each in newest.values():
        try:
            client.set_registered_model_alias(each.name, alias, str(each.version))
            told.append(f"models:/{each.name}@{alias} is version {each.version}")
        except MlflowException as error:
            told.append(f"MLflow takes no such alias for {each.name}: {error.message}")
    return told
