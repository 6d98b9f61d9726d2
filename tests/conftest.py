"""Shared fixtures: servers and stores, started once; a dataset and the networks that taught it."""

from __future__ import annotations

import inspect
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tasks.distill import Networks

PROJECT = Path(__file__).parents[1]

pytest.register_assert_rewrite("tests.worlds")  # python -O leaves out the others, and what they do
from tests.worlds.commands import OURS  # noqa: E402

# Before anything imports Prefect or MLflow: no test talks to the outside, nor to the servers and data of its user.
for name in OURS:
    os.environ.pop(name, None)
os.environ.update(DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false", MLFLOW_DISABLE_TELEMETRY="true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files with one of these are left out of `make quick`: networks, engines, forked processes, many generated cases,
# and the fixtures that start engines.
HEAVY = re.compile(
    r"^ *(from|import) (models|torch|mlflow|prefect|distributed|datasets|gradio|playwright|hypothesis|tracemalloc)\b"
    r"|\b(prefect_api|mlflow_uri|networks|dataset): |tests\.worlds\.processes|flows\.run\.runner",
    re.MULTILINE,
)
STARTS_A_PROCESS = re.compile(r"subprocess\.|\bstillroom\(")  # so does the helper of that name
HELPER = re.compile(r"^ *from (tests[\w.]*|benchmarks[\w.]*) import (\w+)", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption("--quick", action="store_true", help="only files without networks, engines and processes")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave heavy files out where --quick is given, before anything that they import is imported."""
    leave_out = config.getoption("quick") and collection_path.suffix == ".py" and is_heavy(collection_path)
    return True if leave_out else None  # None: as usual


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests out that start a process, where --quick is given."""
    if config.getoption("quick"):
        functions = {item: inspect.getsource(item.function) for item in items if isinstance(item, pytest.Function)}
        left_out = [item for item, source in functions.items() if STARTS_A_PROCESS.search(source)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def is_heavy(path: Path) -> bool:
    """Tell whether a test file, or a helper that it imports, needs a network, an engine or a process."""
    seen: set[Path] = set()
    left = [path]
    while left:
        path = left.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        text = path.read_text(encoding="utf-8")
        if HEAVY.search(text):
            return True
        for module, name in HELPER.findall(text):
            left += [PROJECT / f"{each.replace('.', '/')}.py" for each in (module, f"{module}.{name}")]
    return False


@pytest.fixture(scope="session", autouse=True)
def _as_at_a_terminal() -> None:
    """Heed the signals that `nohup` and `&` have ignored: so would every program that a test starts and signals."""
    for number in (signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *given: None)  # programs started from here begin with the default


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
