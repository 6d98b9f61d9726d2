"""The local Prefect server, the process that serves the deployments of prefect.yaml, and the MLflow pages.

`python -m flows.running.server up | down | serve`; `make up` and `make down` call it. All of it lives below the data
root, listens on loopback only, and leaves a Prefect server of the user's own (PREFECT_API_URL) alone.
"""

import asyncio
import logging
import os
import shutil
import sys
from pathlib import Path

import httpx
import yaml

from data_catalog.errors import UserError
from data_catalog.places import data_root
from flows.running.processes import Service, find_service, free_port, start_service, stop_service, wait_until

log = logging.getLogger(__name__)

REPO = Path(__file__).resolve().parents[2]
# Prefect reads this file in its working directory: with it, `prefect` in another terminal finds our server.
PREFECT_TOML = REPO / "prefect.toml"
PREFECT_TOML_MARK = "# Written by `make up`, removed by `make down`.\n"
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # a flow that runs without a server logs to stderr
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,data_catalog",  # our lines on a run's page
}


def prefect_home(root: Path) -> Path:
    return root.resolve() / "prefect"


def environment(root: Path, api_url: str) -> dict[str, str]:
    """What a process needs in its environment to work with the server at `api_url` on this data root."""
    return {
        **QUIET,
        "PREFECT_HOME": str(prefect_home(root)),
        "PREFECT_API_URL": api_url,
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "STILLROOM_DATA": str(root.resolve()),
    }


def find_api(root: Path) -> str | None:
    """The Prefect API to report to: the user's PREFECT_API_URL, else our server if it is up, else None."""
    if url := os.environ.get("PREFECT_API_URL"):
        return url
    server = find_service(prefect_home(root), "server")
    return server.url if server and healthy(server.url) else None


def healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def start_server(root: Path) -> str:
    """Start our own Prefect server, or find it running. Returns its API URL."""
    home = prefect_home(root)
    server = find_service(home, "server")
    if server is None:
        port = free_port(4200)
        url = f"http://127.0.0.1:{port}/api"
        command = [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        server = start_service(home, "server", command, environment(root, url), url, cwd=REPO)
        log.info("Prefect server starting on port %d", port)
    # A fresh home runs its migrations first: 25 s on a quiet machine, more on a busy one.
    wait_until(lambda: healthy(server.url), server, seconds=240)
    if not PREFECT_TOML.exists():
        PREFECT_TOML.write_text(f'{PREFECT_TOML_MARK}[api]\nurl = "{server.url}"\n')
    return server.url


def start_deployments(root: Path, api_url: str) -> None:
    """Serve the deployments of prefect.yaml from a background process."""
    home = prefect_home(root)
    if find_service(home, "deployments"):
        return
    ready = home / "deployments.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flows.running.server", "serve"]
    service = start_service(home, "deployments", command, environment(root, api_url), api_url, cwd=REPO)
    wait_until(ready.exists, service, seconds=180)


def start_mlflow(root: Path) -> Service:
    """Start the MLflow pages, or find them running. They take a while to answer; nobody waits for them."""
    from flows.tracking.mlflow_runs import tracking_uri

    folder = root.resolve() / "mlflow"
    running = find_service(folder, "ui")
    if running:
        return running
    port = free_port(5000)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", tracking_uri(root), "--workers", "1"]
    return start_service(folder, "ui", command, QUIET, f"http://127.0.0.1:{port}", cwd=REPO)


def up(root: Path) -> dict[str, str]:
    """Everything up: server (unless the user has one), deployments, MLflow pages. Returns their addresses."""
    own = "PREFECT_API_URL" not in os.environ
    api_url = start_server(root) if own else os.environ["PREFECT_API_URL"]
    start_deployments(root, api_url)
    return {"prefect": api_url.removesuffix("/api"), "mlflow": start_mlflow(root).url}


def down(root: Path) -> list[str]:
    """End what `up` started, and nothing else. Returns the names of what was ended."""
    home = prefect_home(root)
    places = [(root.resolve() / "mlflow", "ui"), (home, "deployments"), (home, "server")]
    ended = [name for folder, name in places if stop_service(folder, name)]
    if PREFECT_TOML.exists() and PREFECT_TOML.read_text().startswith(PREFECT_TOML_MARK):
        PREFECT_TOML.unlink()
    return ended


def serve() -> None:
    """Register the deployments of prefect.yaml and run what is asked of them, until ended."""
    asyncio.run(_serve())


async def _serve() -> None:
    from prefect.deployments.runner import RunnerDeployment
    from prefect.runner import Runner

    runner = Runner(name="stillroom", pause_on_shutdown=False)
    for entry in yaml.safe_load((REPO / "prefect.yaml").read_text())["deployments"]:
        deployment = RunnerDeployment.from_entrypoint(
            entry["entrypoint"],
            name=entry["name"],
            parameters=entry.get("parameters"),
            description=entry.get("description"),
        )
        await runner.aadd_deployment(deployment)
    (prefect_home(data_root()) / "deployments.ready").touch()
    await runner.start()


def main(arguments: list[str]) -> int:
    """The entry of `python -m flows.running.server`."""
    root = data_root()
    write = sys.stdout.write
    try:
        match arguments:
            case ["up"]:
                for name, url in up(root).items():
                    write(f"{name:<8} {url}\n")
                width = shutil.get_terminal_size().columns
                write("Stop both with `make down`."[:width] + "\n")
            case ["down"]:
                ended = down(root)
                write(f"ended: {', '.join(ended)}\n" if ended else "nothing of ours was running\n")
            case ["serve"]:
                serve()
            case _:
                write("usage: python -m flows.running.server up | down | serve\n")
                return 2
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
