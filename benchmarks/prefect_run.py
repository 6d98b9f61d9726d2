"""A build and a no-op build reported to a Prefect server: what a partition costs, and how many task runs there are."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from benchmarks import peers
from flows.run.server import environment, healthy
from tasks.processes import free_port

if TYPE_CHECKING:
    from benchmarks.orchestrator import Stillroom

START_SECONDS = 200


def measure_with_prefect(ours: "Stillroom") -> dict[str, Any]:
    """Build everything, then nothing, with catalog, workers, MLflow and a Prefect server; its CPU time counts."""
    ours.folder.mkdir(parents=True, exist_ok=True)
    root = Path(ours.environment["STILLROOM_DATA"])
    root.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{free_port(4300)}/api"
    given = {**os.environ, **environment(root, url)}
    port = url.split(":")[2].split("/")[0]
    with (ours.folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
        server = subprocess.Popen(command, env=given, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not healthy(url):
            if time.monotonic() > deadline:
                raise RuntimeError("the Prefect server did not start")
            time.sleep(1)
        before = _cpu(server.pid)
        first = ours.run("build", PREFECT_API_URL=url)
        runs = _task_runs(url)
        between = _cpu(server.pid)
        again = ours.run("build", PREFECT_API_URL=url)
        runs_again = _task_runs(url) - runs
        after = _cpu(server.pid)
    finally:
        _end(server)
    partitions = sum(1 for _ in peers.partitions(ours.styles, ours.blocks))
    return {
        "partitions": partitions,
        "build_cpu_s": round(first.cpu_s + between - before, 2),
        "build_wall_s": first.wall_s,
        "ms_per_dirty_partition_wall": round(1000 * (first.wall_s - again.wall_s) / partitions, 1),
        "ms_per_dirty_partition_cpu": round(
            1000 * (first.cpu_s - again.cpu_s + (between - before) - (after - between)) / partitions, 1
        ),
        "task_runs": runs,
        "no_op_cpu_s": round(again.cpu_s + after - between, 2),
        "no_op_task_runs": runs_again,
    }


def _task_runs(url: str) -> int:
    time.sleep(3)  # the server takes events in after the flow has ended
    return int(httpx.post(f"{url}/task_runs/count", json={}, timeout=60, trust_env=False).json())


def _cpu(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


def _end(server: "subprocess.Popen[bytes]") -> None:
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(server.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    server.kill()
    server.wait()
