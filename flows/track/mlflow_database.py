"""MLflow database below the data root: made atomically, with artifact locations that follow the root.

MLflow stores absolute locations. In a copied or moved data root they point to the old place, where artifacts would be
read and written. `open_database` rewrites them before anything else reads the database.
"""

import logging
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from filelock import FileLock

from data_catalog.config.errors import UserError
from data_catalog.store.store import writing
from flows.track.mlflow_client import database_uri, make_client

log = logging.getLogger(__name__)

FOLDER, DATABASE, ARTIFACTS = "mlflow", "mlflow.db", "artifacts"
# Columns with an address below the data root. `datasets` holds the addresses of our snapshots inside JSON.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("datasets", "dataset_source"),
)


def database_path(root: Path) -> Path:
    return root.resolve() / FOLDER / DATABASE


def artifacts_uri(root: Path) -> str:
    """Address of the artifacts below this data root."""
    return (root.resolve() / FOLDER / ARTIFACTS).as_uri()


def open_database(root: Path) -> str:
    """Make the database if it is missing, and move its locations below this root. Returns MLflow's URI of it."""
    path = database_path(root)
    with writing(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _make(path)
            elif not is_finished(path):
                _replace_unfinished(path)
            for place in places(path):
                if place != root.resolve().as_uri():
                    _move_locations(path, place, root)
    return database_uri(path)


def places(path: Path) -> list[str]:
    """Data roots (URIs) that the experiments' artifact locations lie below."""
    ending = f"/{FOLDER}/{ARTIFACTS}"
    with _connected(path) as database:
        rows = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    return sorted({text.removesuffix(ending) for (text,) in rows if text and text.endswith(ending)})


def newest_experiment(root: Path) -> str | None:
    """Return the id of the experiment that ran last in the database below this root; None where there is no run."""
    path = database_path(root)
    if not path.is_file():
        return None
    with _connected(path) as database:
        newest = database.execute("SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1").fetchone()
    return str(newest[0]) if newest else None


def look_at_locations(root: Path) -> list[str]:
    """List locations that MLflow would not find below this root: artifacts elsewhere, and models without files."""
    path = database_path(root)
    if not path.exists():
        return []
    own, found = root.resolve().as_uri(), []
    for place in places(path):
        if place != own:
            found.append(f"artifacts are looked for below {place}")
    with _connected(path) as database:
        models = database.execute("SELECT model_id, artifact_location FROM logged_models").fetchall()
    for name, location in models:
        if location and location.startswith(f"{own}/") and not Path(unquote(urlparse(location).path)).is_dir():
            found.append(f"the model {name} has no files in {location}")
    return found


def is_finished(path: Path) -> bool:
    """Whether MLflow has made all its tables. It stamps its schema's version after each of many steps."""
    with _connected(path) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"experiments", "runs", "alembic_version"} <= tables:
            return False
        # The default experiment is made last, when the schema is complete.
        return database.execute("SELECT count(*) FROM experiments").fetchone()[0] > 0


def _make(path: Path) -> None:
    """Make the tables in a file of another name, and rename it: a kill leaves no partial database."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()  # from a process that died: we hold the lock
    try:
        make_client(database_uri(temporary)).search_experiments(max_results=1)
        with _connected(temporary) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        temporary.replace(path)
    finally:
        for left in path.parent.glob(f"{temporary.name}*"):
            left.unlink()


def _replace_unfinished(path: Path) -> None:
    """Replace the unfinished database of a dead process that holds no run by a complete one."""
    with _connected(path) as database:
        try:
            runs = database.execute("SELECT count(*) FROM runs").fetchone()[0]
        except sqlite3.OperationalError:  # no such table yet
            runs = 0
    if runs:
        hint = f"put a backup in its place, or move it away: mv {path} {path}.damaged"
        raise UserError("the MLflow database is incomplete and holds runs", path=path, runs=runs, hint=hint)
    log.warning("the MLflow database is incomplete and holds no run; it is made again: %s", path)
    path.unlink()
    _make(path)


def _move_locations(path: Path, old: str, root: Path) -> None:
    """Rewrite the addresses below the root `old` to the same places below `root`, in one transaction."""
    new = root.resolve().as_uri()
    with _connected(path) as database, database:
        for table, column in LOCATIONS:
            # A dataset's address is inside JSON; other columns start with it.
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?) > 0",
                (f"{old}/", f"{new}/", f"{old}/"),
            )
    log.info("MLflow's artifacts of the data root's earlier place are found here now: %s -> %s", old, new)


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path, timeout=60)) as database:
            yield database
    except sqlite3.DatabaseError as error:
        hint = f"put a backup in its place, or move it away: mv {path} {path}.damaged"
        raise UserError("the MLflow database cannot be read", path=path, cause=error, hint=hint) from error
