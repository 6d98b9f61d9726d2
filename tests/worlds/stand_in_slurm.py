"""A stand-in for a SLURM queue: commands that keep their jobs as processes, and their states as files in a folder."""

import os
import signal
import stat
from pathlib import Path

import pytest

SBATCH = """
[ -e refused ] && { echo "sbatch: error: Invalid partition name specified" >&2; exit 1; }
cp "${@: -1}" $$.job  # as the real one does: the script is gone soon
touch $$.submitted
[ -e held ] || { (job=$PWD/$$.job; cd "$OLDPWD"; exec setsid bash $job) >$$.out 2>&1 & echo $! >$$.pid; }
echo "Submitted batch job $$"
"""
SQUEUE = """
for job in $(echo "${@: -1}" | tr -c '0-9\\n' ' '); do
    if [ -e $job.state ]; then state=$(cat $job.state)
    elif [ -e $job.pid ]; then state="RUNNING|None"
    else state="PENDING|Resources"; fi
    echo "$job|$state"
done
"""
SCANCEL = """
for job in "$@"; do
    [ -e $job.state ] || echo "CANCELLED|None" >$job.state
    [ -e $job.pid ] && kill -9 -- -$(cat $job.pid) 2>/dev/null
done
true
"""


class StandIn:
    """The queue. Its jobs start at once, unless it is told to hold or to refuse them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        for name, script in {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL}.items():
            self.command(name, f"cd {folder}\n{script}")
        self.command("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def command(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def tell(self, word: str) -> None:
        """From now on jobs are `held` or `refused`."""
        (self.folder / word).touch()

    def jobs(self) -> list[str]:
        return [path.stem for path in self.folder.glob("*.submitted")]

    def state(self, job: str) -> str:
        path = self.folder / f"{job}.state"
        return path.read_text().strip() if path.exists() else "there"

    def end(self, job: str, state: str = "TIMEOUT|TimeLimit") -> None:
        """End a job as the queue does, with this state and reason."""
        (self.folder / f"{job}.state").write_text(state)
        os.killpg(int((self.folder / f"{job}.pid").read_text()), signal.SIGKILL)
