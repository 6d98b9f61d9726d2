"""`prefect deploy --all` and a process worker, on a server of the user's own: the way of the field around `make up`."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_catalog.config.places import PROJECT
from data_catalog.products.snapshot import open_snapshot
from flows.run.deployments import name_entry
from flows.run.history import last_run
from flows.run.processes import Service, start_service, wait_until
from flows.run.server import QUIET, healthy
from tasks.processes import free_port
from tests.worlds import web
from tests.worlds.checkouts import end_family
from tests.worlds.commands import SMALL, environment

# A service outlives the object that started it, by intention.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

SECONDS = 900  # for one command, on a machine that does much else


@pytest.fixture
def given(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user whose own Prefect server is up."""
    home, port = tmp_path / "home", free_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    own = environment(**QUIET, PREFECT_HOME=str(home), PREFECT_API_URL=url, STILLROOM_DATA=str(tmp_path / "data"))
    server = start_service(home, "server", command, own, url, cwd=tmp_path)
    try:
        wait_until(lambda: healthy(url), server, seconds=300)
        yield own
    finally:
        end_family(server.pid)


def prefect(given: dict[str, str], *arguments: str, cwd: Path = PROJECT) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=cwd,
        env=given,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout + ended.stderr


def read(given: dict[str, str], path: str, **body: Any) -> Any:
    return web.post(f"{given['PREFECT_API_URL']}/{path}", json=body).raise_for_status().json()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_process_worker_runs_a_deployment_of_deploy_all_to_its_end(given: dict[str, str], tmp_path: Path) -> None:
    prefect(given, "work-pool", "create", "stillroom", "--type", "process")
    prefect(given, "deploy", "--all")
    entries = yaml.safe_load((PROJECT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    flows = {flow["id"]: flow["name"] for flow in read(given, "flows/filter")}
    deployed = {f"{flows[each['flow_id']]}/{each['name']}": each for each in read(given, "deployments/filter")}
    assert set(deployed) == {name_entry(entry) for entry in entries}
    build = deployed["build-dataset/demo"]
    assert (build["work_pool_name"], build["tags"]) == ("stillroom", ["demo"])
    assert build["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(PROJECT)}}]

    with ExitStack() as ended:
        start = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "stillroom"]
        worker: Service = start_service(tmp_path / "worker", "worker", start, given, cwd=tmp_path)
        ended.callback(end_family, worker.pid)
        overrides = [f"{name}={value}" for name, value in SMALL.items()] + ["prompts.styles=[zombie]"]
        asked = ["deployment", "run", "build-dataset/demo", "--param", f"overrides={json.dumps(overrides)}"]
        prefect(given, *asked, "--flow-run-name", "mine")
        deadline = time.monotonic() + SECONDS
        while (run := read(given, "flow_runs/filter")[0])["state_type"] not in ("COMPLETED", "FAILED", "CRASHED"):
            assert time.monotonic() < deadline, Path(worker.log).read_text(encoding="utf-8")[-3000:]
            time.sleep(2)
    assert (run["state_type"], run["name"]) == ("COMPLETED", "mine"), run["state"]["message"]
    outcome = last_run(tmp_path / "data", "build-dataset").outcome
    assert open_snapshot(tmp_path / "data", outcome["dataset"]).samples(["key"]).num_rows == outcome["samples"] > 0
