"""MLflow's client, which waits for seconds, not for minutes, and its addresses of sqlite files."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Limits where the user gave none. MLflow's own are minutes for each call.
LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
SQLITE = "sqlite:///"
ATTEMPTS = 3  # to open a database; MLflow's own 10 take 100 s


def make_client(uri: str) -> "MlflowClient":
    """Return a client of the store at this address."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = ATTEMPTS  # there is no setting for it
    utils._make_parent_dirs_if_sqlite = make_folder  # MLflow's takes the encoded name for that of a folder
    for chatty in ("urllib3.connectionpool", "mlflow.store.db.utils"):  # each attempt; the last one is raised
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    return MlflowClient(tracking_uri=uri)


def database_uri(path: Path, kind: str = "sqlite") -> str:
    """Return the address of an sqlite file, quoted as SQLAlchemy does."""
    return f"{kind}:///{quote(str(path), safe=' +/')}"


def sqlite_path(uri: str) -> Path | None:
    """Return the file of an sqlite address; None for an address of another kind."""
    scheme, _, place = uri.partition(":///")
    path = unquote(place.partition("?")[0])
    return Path(path) if scheme.partition("+")[0] == "sqlite" and path not in ("", ":memory:") else None


def make_folder(uri: str) -> None:
    """Make the folder of an sqlite file."""
    if (path := sqlite_path(uri)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
