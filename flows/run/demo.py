"""`make demo`: build, distil and evaluate through Prefect deployments, then print the places of the results.

Uses the Prefect API in PREFECT_API_URL if there is one; otherwise starts a server of its own and ends it
again, unless `--leave-up` is given or it was up before.
"""

import sys
import threading
import time
from pathlib import Path
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.places import data_root, shown_path
from flows.run import server
from flows.run.engine import trigger
from flows.run.history import last_run
from flows.run.processes import find_service
from flows.run.signals import LeftRunning

FLOWS = ("build-dataset", "distill", "evaluate")
MEASURES = {"ID": "id", "CLIP": "clip", "3D": "three_d", "LPIPS": "lpips", "s / image": "seconds_per_image"}


def run_deployment(flow: str, log: Path) -> float:
    """Start `<flow>/demo` and wait for its end, repeating its lines. Returns the seconds it took."""
    started = time.monotonic()
    say(f"\n{flow}")
    ended = trigger(flow, "demo", [], watch=True, force=[], say=lambda line: say(f"  {line}"))
    if ended["state"] != "COMPLETED":
        hint = "fix the cause, then run: make demo    (what is finished is kept)"
        says = str(ended["message"]).partition("\n")[0]
        raise UserError(f"the flow {flow}/demo did not complete", says=says, log=log, hint=hint)
    return time.monotonic() - started


def demo(root: Path, leave_up: bool, take_over: bool = False) -> None:
    """Run the three flows in their order, and print a summary on stdout."""
    # Services that ran before the demo stay; services that it starts are ended.
    stays = leave_up or find_service(server.prefect_home(root), "deployments") is not None
    started = time.monotonic()
    say(f"the demo takes about 4 minutes on two cores, 3 GB of memory and 0.5 GB of disk in {shown_path(root)}")
    preparing = threading.Thread(target=prepare_tracking, args=(root,))
    try:
        preparing.start()
        api_url = server.users_api() or server.start_server(root)
        news = server.start_deployments(root, api_url, take_over)
        preparing.join()
        if news:
            say(news)
        say(f"Prefect is up after {time.monotonic() - started:.0f} s: {api_url.removesuffix('/api')}")
        log = server.prefect_home(root) / "deployments.log"
        seconds = {flow: run_deployment(flow, log) for flow in FLOWS}
        if leave_up:
            server.start_mlflow(root)
        summarise(root, seconds)
    except LeftRunning as left:
        say(left.said if stays else "interrupted; finished partitions are kept: make demo goes on from there")
        raise
    finally:
        if preparing.is_alive():
            preparing.join()  # a database that is half made cannot be used
        if not stays:
            server.down(root)
    if stays:
        for name, url in server.up(root).items():
            say(f"{name:<15} {url}")


def prepare_tracking(root: Path) -> None:
    """Make MLflow's database while the server starts."""
    from flows.track.mlflow_store import find_store

    find_store(root)


def summarise(root: Path, seconds: dict[str, float]) -> None:
    """Print the seconds per stage as measured by the stages, then the measures and the places of the results."""
    say("\nseconds per stage")
    for flow in FLOWS:
        for stage, spent in last_run(root, flow).stage_seconds.items():
            say(f"  {stage:<12} {spent:8.1f}")
    for flow, spent in seconds.items():
        say(f"{flow:<14} {spent:8.1f}   with Prefect's own time")
    say(f"{'together':<14} {sum(seconds.values()):8.1f}")
    tell_evaluation(last_run(root, "evaluate").outcome)


def tell_evaluation(outcome: dict[str, Any]) -> None:
    """Print the measures of each method, the places of the report and the pictures, and commands to go on with."""
    say(f"\n{'':<16}" + "".join(f"{title:>10}" for title in MEASURES))
    for row in outcome["table"]:
        say(f"{row['method']:<16}" + "".join(_cell(row.get(name)) for name in MEASURES.values()))
    say(f"\nreport          {shown_path(Path(outcome['report']))}")
    say(f"pictures        {shown_path(Path(outcome['sheet']))}")
    say("\nnext")
    say('  .venv/bin/stillroom edit docs/portrait.png --prompt "make him a clown"')
    say("  make up    # Prefect's and MLflow's pages")


def _cell(value: float | None) -> str:
    return f"{'' if value is None else f'{value:.3f}':>10}"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(options: list[str]) -> None:
    """Run the demo on the data root."""
    demo(data_root(), "--leave-up" in options, "--take-over" in options)
