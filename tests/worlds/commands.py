"""The command line in processes of its own, on a job of a handful of heads; and killing at a chosen moment."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from data_catalog.config.places import PROJECT
from tests.worlds.processes import fork, wait

SMALL = {
    "portraits.count": "6",
    "portraits.block_size": "3",
    "portraits.test_fraction": "0.3",
    "edit.steps": "3",
    "select.min_clip_text": "null",
    "select.min_clip_direction": "null",
    "select.max_ssim": "null",
    "select.min_yield": "0",
    "teach.views": "1",
    "distill.iterations": "2",
    "evaluate.timing_repeats": "1",
    "evaluate.pictures_per_style": "1",
}
# What sends a command to another server or store than the test means.
OURS = ("STILLROOM_DATA", "PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILES_PATH", "MLFLOW_TRACKING_URI")
SECONDS = 500  # for one command, on a machine that does much else


def environment(**given: str) -> dict[str, str]:
    """Environment of a user: the caller's without what is the tests' own, and what is given."""
    return {**{name: value for name, value in os.environ.items() if name not in OURS}, **given}


def overrides(**changes: str) -> list[str]:
    """The options of a small job, `stage__key=value` changed or added."""
    values = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    return [text for name, value in values.items() for text in ("--set", f"{name}={value}")]


def start(
    root: Path, *arguments: str, log: Path | None = None, cwd: Path = PROJECT, **given: str
) -> subprocess.Popen[str]:
    """Start `stillroom ...` on a data root, in a session of its own. Its output goes to `log`."""
    with (log or Path(os.devnull)).open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=cwd,
            env=environment(STILLROOM_DATA=str(root), **given),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def run(root: Path, *arguments: str, cwd: Path = PROJECT, **given: str) -> dict[str, Any]:
    """Run `stillroom ...` to its end; returns its JSON."""
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        cwd=cwd,
        env=environment(STILLROOM_DATA=str(root), **given),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def until(reached: Callable[[], bool], what: str, seconds: float = 300, poll: float = 0.02) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(poll)


def count_tables(path: Path) -> int:
    """Tables of a database that another process is making; 0 where there is none, or it is busy."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.01)) as database:
            count: int = database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
            return count
    except sqlite3.OperationalError:
        return 0


def kill_when(reached: Callable[[], bool], work: Callable[[], object]) -> None:
    """Do `work` in a copy of this process, and end that with SIGKILL as soon as something is so."""

    def doomed() -> None:
        work()

    process = fork(doomed)
    while not reached():
        assert os.waitpid(process, os.WNOHANG)[0] == 0, "it ended before the moment to kill it at"
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    assert wait(process) == -signal.SIGKILL, "it ended at the moment to kill it at"
