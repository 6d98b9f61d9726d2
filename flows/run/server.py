"""The local Prefect server, the process that serves the deployments of prefect.yaml, and the MLflow pages.

`make up` and `make down` call it, by `python -m flows.run`. All of it lives below the data root, listens on loopback
only, and leaves a Prefect server of the user's own (PREFECT_API_URL) alone.
"""

import argparse
import asyncio
import logging
import os
import shutil
import socket
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT, data_root
from data_catalog.store.store import writing
from flows.run import active
from flows.run.processes import (
    Service,
    end_process,
    find_service,
    start_service,
    stop_service,
    wait_until,
)
from flows.track.addresses import check_prefect, host_of, shown
from flows.track.mlflow_client import SQLITE, database_uri
from flows.track.mlflow_database import newest_experiment
from tasks.processes import free_port

log = logging.getLogger(__name__)

# Prefect reads this file in its working directory: with it, `prefect` in another terminal finds our server.
PREFECT_TOML = PROJECT / "prefect.toml"
PREFECT_TOML_MARK = "# Written by `make up`, removed by `make down`.\n"
READY = "deployments.ready"  # below Prefect's home; written once the deployments are served
LOOPBACK = ("127.0.0.1", "localhost", "::1")
STOP_SECONDS = 40.0  # seconds for a run to end in good order; longer than Prefect's own grace
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # a flow that runs without a server logs to stderr
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "flows,tasks,data_catalog",  # our lines on a run's page
}


def prefect_home(root: Path) -> Path:
    return root.resolve() / "prefect"


def without_server(root: Path) -> dict[str, str]:
    """Return the environment of a process that imports Prefect and needs no server; makes Prefect's home.

    The home and its profiles lie below the data root: the user's may be missing, unreadable or broken.
    """
    home = prefect_home(root)
    with writing(root):
        home.mkdir(parents=True, exist_ok=True)
    given = {**QUIET, "PREFECT_HOME": str(home), "PREFECT_PROFILES_PATH": str(home / "profiles.toml")}
    try:
        Path.home()
    except RuntimeError:  # neither HOME nor an entry of this user
        given["HOME"] = str(home)
    return given


def environment(root: Path, api_url: str) -> dict[str, str]:
    """Return the environment of a process that works with the server at `api_url` on this data root."""
    return {
        **without_server(root),
        **_direct(api_url),
        "PREFECT_API_URL": api_url,
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "STILLROOM_DATA": str(root.resolve()),
    }


def _direct(api_url: str) -> dict[str, str]:
    """Return what keeps requests to a server of this machine from a proxy."""
    if host_of(api_url) not in LOOPBACK:
        return {}
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    direct = ",".join([*filter(None, given.split(",")), *(host for host in LOOPBACK if host not in given)])
    return {"NO_PROXY": direct, "no_proxy": direct}


def users_api() -> str | None:
    """Return the user's PREFECT_API_URL, if set. Raises UserError where no Prefect server answers there."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return None
    os.environ.update(_direct(url))
    check_prefect(url)
    return url


def find_api(root: Path) -> str | None:
    """The Prefect API to report to: the user's PREFECT_API_URL, else our server if it is up, else None."""
    if url := users_api():
        return url
    server = find_service(prefect_home(root), "server")
    return server.url if server and healthy(server.url) else None


def healthy(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def use_api(root: Path, api_url: str) -> None:
    """Set up this process for the server at `api_url`. Prefect reads the environment when it is first imported."""
    os.environ.update(environment(root, api_url))
    import_prefect()


def import_prefect() -> None:
    """Let Prefect read its settings. Raises UserError where it cannot."""
    from prefect.settings import get_current_settings

    try:
        get_current_settings()
    except Exception as error:  # it reads variables, profiles.toml, prefect.toml, pyproject.toml and .env
        said = " ".join(str(error).split())[:300] or type(error).__name__
        hint = "look at the variables PREFECT_*, and at prefect.toml, pyproject.toml and .env in this folder"
        raise UserError("Prefect cannot read its settings", says=said, folder=Path.cwd(), hint=hint) from error


def start_server(root: Path) -> str:
    """Start our own Prefect server, or find it running. Returns its API URL."""
    home = prefect_home(root)
    server = find_here(home, "server") or _launch_server(root, home)
    try:
        # A fresh home runs its migrations first: 25 s on an idle machine, more on a busy one.
        wait_until(lambda: healthy(server.url), server, seconds=240)
    except UserError:
        if server.alive() or not drop_unfinished_database(home):
            raise
        log.warning("Prefect's database is incomplete and holds no run; it is made again")
        server = _launch_server(root, home)
        wait_until(lambda: healthy(server.url), server, seconds=240)
    write_prefect_toml(server.url)
    return server.url


def write_prefect_toml(url: str) -> None:
    """Let `prefect` in another terminal find the server, unless the project may only be read."""
    try:
        # One of a copied checkout names the server of the original.
        if not PREFECT_TOML.exists() or PREFECT_TOML.read_text().startswith(PREFECT_TOML_MARK):
            PREFECT_TOML.write_text(f'{PREFECT_TOML_MARK}[api]\nurl = "{url}"\n')
    except OSError as error:
        log.warning("%s is not written (%s); for `prefect` set PREFECT_API_URL=%s", PREFECT_TOML, error, url)


def _launch_server(root: Path, home: Path) -> Service:
    port = free_port(4200)
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log.info("Prefect server starting on port %d", port)
    database = {"PREFECT_API_DATABASE_CONNECTION_URL": database_uri(home / "prefect.db", "sqlite+aiosqlite")}
    return start_service(home, "server", command, environment(root, url) | database, url, cwd=PROJECT)


def find_here(folder: Path, name: str) -> Service | None:
    """Find a running service of this data root; a service that ran while the root was moved is ended."""
    service = find_service(folder, name)
    if service is not None and service.moved(folder):
        stop_service(folder, name)
        return None
    return service


def drop_unfinished_database(home: Path) -> bool:
    """Move a Prefect database without a flow run out of the way, so that the server makes it again."""
    path = home / "prefect.db"
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path)) as database:
            runs = database.execute("SELECT count(*) FROM flow_run").fetchone()[0]
    except sqlite3.DatabaseError:  # no such table yet
        runs = 0
    if runs:
        return False
    for left in home.glob("prefect.db-*"):
        left.unlink()
    path.replace(home / "prefect.db.unfinished")
    return True


def start_deployments(root: Path, api_url: str, take_over: bool = False) -> str:
    """Serve the deployments of prefect.yaml from a background process; one that does so already reads the file again.

    Returns lines for the user: which checkout had them before, which are removed, which keys have no use here. Raises
    UserError for a mistake in the file, and if another checkout serves them now, unless `take_over` is set.
    """
    home = prefect_home(root)
    use_api(root, api_url)
    from flows.run.deployments import read_deployments
    from flows.run.lifecycle import end_left_runs
    from flows.run.serving import NOT_TAKEN, check_served_here

    asyncio.run(read_deployments())  # a mistake is said before anything is started
    ready = home / READY
    service = find_here(home, "deployments")
    is_ours = service is not None and service.checkout == str(PROJECT) and service.url == api_url
    if service is not None and is_ours:
        wait_until(ready.exists, service, seconds=180)
    if check_served_here(root, api_url, take_over):
        if service is None or not is_ours:  # it is starting, or runs in another way
            return ""
        ready.unlink(missing_ok=True)
        wait_until(ready.exists, service, seconds=180)
        said = ready.read_text(encoding="utf-8")
        if said.startswith(NOT_TAKEN):
            raise UserError(said)
        return said
    stop_service(home, "deployments")  # its server is gone, or it was just taken over
    end_left_runs(root)
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flows.run", "serve"]
    service = start_service(home, "deployments", command, environment(root, api_url), api_url, cwd=PROJECT)
    wait_until(ready.exists, service, seconds=180)
    return ready.read_text(encoding="utf-8")


def start_mlflow(root: Path) -> Service:
    """Start the MLflow pages, or find them running. They take a while to answer; the caller does not wait."""
    from flows.track.mlflow_database import DATABASE, artifacts_uri
    from flows.track.mlflow_store import find_store

    store = find_store(root)
    folder = root.resolve() / "mlflow"
    running = find_here(folder, "ui")
    if running:
        return running
    port = free_port(5000)
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", artifacts_uri(root)]
    # Not on the command line, which every user of the machine can read: there may be a password in it.
    # Relative to the folder: MLflow takes an encoded name for that of a folder, and would make one.
    given = {**QUIET, "MLFLOW_BACKEND_STORE_URI": f"{SQLITE}{DATABASE}" if store.is_own else store.uri}
    return start_service(folder, "ui", command, given, f"http://127.0.0.1:{port}", cwd=folder)


def mlflow_pages(root: Path) -> str:
    """Return the address of the MLflow pages, which are started unless a server of the user's own has some."""
    from flows.track.mlflow_store import named_store

    named = named_store()
    if named is not None and named.uri.startswith("http"):
        return shown(named.uri)
    return start_mlflow(root).url


def runs_page(root: Path, pages: str) -> str:
    """Return the address of the table of runs. Without `workflowType`, MLflow opens its pages for GenAI."""
    experiment = newest_experiment(root)
    place = "experiments" if experiment is None else f"experiments/{experiment}/runs"
    return f"{pages.rstrip('/')}/#/{place}?workflowType=machine_learning"


def up(root: Path, take_over: bool = False) -> dict[str, str]:
    """Start server (unless the user has one), deployments and MLflow pages. Returns their addresses, and news."""
    from flows.track.mlflow_store import named_store

    if (named := named_store()) is not None:
        named.check()
    api_url = users_api() or start_server(root)
    news = start_deployments(root, api_url, take_over)
    pages = mlflow_pages(root)
    found = {"prefect": shown(api_url).removesuffix("/api"), "mlflow": pages, "runs": runs_page(root, pages)}
    return found | ({"note": news} if news else {})


def find_work(root: Path) -> list[str]:
    """Describe the active runs that would be ended with our services."""
    own = prefect_home(root)
    server = find_service(own, "server")
    found = [
        active.describe(run)
        for run in active.running(root)
        if run.flow_run_id and (server is not None or run.pid in _children_of_deployments(root))
    ]
    starting = len(_children_of_deployments(root))
    return found or [f"{starting} processes of a run that starts"] * bool(starting)


def _children_of_deployments(root: Path) -> set[int]:
    service = find_service(prefect_home(root), "deployments")
    if service is None:
        return set()
    return {child.pid for child in psutil.Process(service.pid).children(recursive=True)}


def down(root: Path) -> list[str]:
    """End everything that `up` started, and the runs that report to it. Returns the names of ended services.

    The ended runs are marked in every record. Raises UserError if another checkout serves on this data root.
    """
    home = prefect_home(root)
    deployments, server = find_service(home, "deployments"), find_service(home, "server")
    if deployments is not None and deployments.checkout != str(PROJECT) and Path(deployments.checkout).exists():
        hint = f"make down in {deployments.checkout}"
        raise UserError("another checkout serves on this data root", serving=deployments.checkout, hint=hint)
    ended = [name for folder, name in [(root.resolve() / "mlflow", "ui")] if stop_service(folder, name)]
    reporting = [run for run in active.running(root) if run.flow_run_id and run.host == socket.gethostname()]
    if stop_service(home, "deployments", seconds=STOP_SECONDS):
        ended.append("deployments")
    if server is not None:
        for run in reporting:
            end_process(run.pid, STOP_SECONDS)
    if active.left_runs(root):
        if server is not None and healthy(server.url):
            use_api(root, server.url)
        from flows.run.lifecycle import end_left_runs

        end_left_runs(root)
    if stop_service(home, "server"):
        ended.append("server")
    with suppress(PermissionError):  # another user's
        if PREFECT_TOML.exists() and PREFECT_TOML.read_text().startswith(PREFECT_TOML_MARK):
            PREFECT_TOML.unlink()
    return ended


def confirm_down(root: Path, now: bool) -> None:
    """Ask before ending active runs; refuse where the terminal is not interactive."""
    work = find_work(root)
    if now or not work:
        return
    hint = "make down NOW=1    (ends them; finished partitions are kept, and the same command resumes)"
    if not sys.stdin.isatty():
        raise UserError("runs are in work", runs="; ".join(work), hint=hint)
    import typer

    typer.echo("in work: " + "; ".join(work))
    if not typer.confirm("End them? What is finished is kept."):
        raise UserError("nothing was ended", hint=hint)


def main(arguments: list[str]) -> None:
    """Start, end or serve, as `python -m flows.run` asks."""
    parser = argparse.ArgumentParser(prog="python -m flows.run")
    parser.add_argument("action", choices=("up", "down", "serve"))
    parser.add_argument("--take-over", action="store_true", help="up: end another checkout's serving first")
    parser.add_argument("--now", action="store_true", help="down: end runs that are in work, too")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    root = data_root()
    match given.action:
        case "up":
            for name, url in up(root, given.take_over).items():
                sys.stdout.write(f"{name:<8} {url}\n".replace("\n", f"\n{'':9}", url.count("\n")))
            sys.stdout.write("Stop both with `make down`."[: shutil.get_terminal_size().columns] + "\n")
        case "down":
            confirm_down(root, given.now)
            ended = down(root)
            sys.stdout.write(f"ended: {', '.join(ended)}\n" if ended else "nothing of ours was running\n")
        case "serve":
            from flows.run.serving import serve

            asyncio.run(serve(root, prefect_home(root) / READY))
