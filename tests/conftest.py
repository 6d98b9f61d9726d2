"""Shared fixtures: servers and stores, started once; a dataset and the networks that taught it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tasks.distill import Networks

# Before anything imports Prefect or MLflow: no test talks to the outside.
os.environ.update(DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false", MLFLOW_DISABLE_TELEMETRY="true")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking store of the tests' own; a fresh sqlite file costs MLflow ten seconds of migrations."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    yield os.environ["MLFLOW_TRACKING_URI"]
    if before is None:
        del os.environ["MLFLOW_TRACKING_URI"]
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect server of the tests' own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root of the test file's own."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def networks() -> Networks:
    """Networks that a student learns from, untrained."""
    from tests.worlds import taught

    return taught.untrained_networks()


@pytest.fixture(scope="module")
def dataset(root: Path, networks: Networks) -> Path:
    """A small dataset below `root`, taught by `networks`."""
    from tests.worlds import taught

    return taught.write_dataset(root, networks.teacher)
