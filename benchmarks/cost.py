"""Cost of a whole command: CPU time of its process tree, wall time, memory."""

import ctypes
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER: processes that outlive their parent come to us, with their CPU time


@dataclass(frozen=True)
class Cost:
    """Cost of one command. `cpu_s` is user + system time of the whole tree, `peak_mb` of its largest process."""

    cpu_s: float
    wall_s: float
    peak_mb: float
    finished: bool = True  # False: it was stopped at the limit, and would have cost more


def measure(
    command: Sequence[str | Path], cwd: Path, environment: Mapping[str, str] | None = None, limit_s: float = 240.0
) -> Cost:
    """Run a command to its end, or to the limit. Raises with its output if it fails."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    started, out = time.monotonic(), cwd / ".benchmark.log"
    with out.open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    cpu_s, peak_kb, status, finished = 0.0, 0, None, True
    while status is None or _anyone_left(process.pid):
        if time.monotonic() - started > limit_s and finished:
            os.killpg(process.pid, 9)
            finished = False
        pid, ended, usage = os.wait4(-process.pid, os.WNOHANG)
        if pid == 0:
            time.sleep(0.02)
            continue
        cpu_s += usage.ru_utime + usage.ru_stime
        peak_kb = max(peak_kb, usage.ru_maxrss)
        status = ended if pid == process.pid else status
    process.returncode = os.waitstatus_to_exitcode(status)
    if finished and process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{out.read_text(errors='replace')[-3000:]}")
    return Cost(round(cpu_s, 3), round(time.monotonic() - started, 3), round(peak_kb / 1024, 1), finished)


def cheapest(runs: Sequence[Cost]) -> Cost:
    """Return the run that a busy machine disturbed least."""
    return min(runs, key=lambda cost: cost.cpu_s)


def _anyone_left(group: int) -> bool:
    try:
        os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
