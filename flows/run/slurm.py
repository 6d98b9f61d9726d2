"""Jobs of a SLURM queue, one worker each: submitted through dask-jobqueue, with the queue's reports."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from dask_jobqueue.slurm import SLURMCluster, SLURMJob
from distributed.core import Status

ANSWER_SECONDS = 30.0  # seconds to wait for squeue and sacct
JOBS_NAMED = 3  # jobs listed per state
# A job in any other state has a worker, or will have one.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
}


class Job(SLURMJob):
    """Job whose status says that it is closed: `distributed` checks it when the cluster is closed."""

    async def close(self) -> None:
        await super().close()
        self.status = Status.closed


@dataclass(frozen=True)
class Report:
    """State of the jobs: the queue's words, and whether all jobs have ended."""

    words: str
    ended: bool


class SlurmQueue(SLURMCluster):
    """Cluster of such jobs. `submit` submits them and, once all have ended, replaces them."""

    job_cls = Job
    submissions = 0
    job_ids: tuple[str, ...] = ()
    refusal = ""  # last line of sbatch, if it accepted no job

    def submit(self, number: int) -> None:
        """Submit jobs, and cancel earlier ones. A refusal is kept in `refusal` for the next report."""
        self.submissions += 1
        # Names are never reused: `distributed` closes a lost worker by its name, 15 s later.
        names = [f"stillroom-{self.submissions}-{count}" for count in range(number)]

        async def renew() -> None:
            self.worker_spec = dict.fromkeys(names, self.new_spec)
            await self

        self.refusal = ""
        try:
            self.sync(renew)
        except (RuntimeError, ValueError) as error:  # sbatch failed, or printed no job number
            self.refusal = str(error).strip().splitlines()[-1]
        self.job_ids = tuple(job.job_id for job in self.workers.values() if job.job_id)

    def report(self) -> Report:
        """Ask the queue for the state of the jobs. While it does not answer, no job counts as ended."""
        try:
            states = _states(self.job_ids)
        except _NoAnswerError as error:
            return Report(str(error), ended=False)
        words = _by_state(states) + ([self.refusal] if self.refusal else [])
        return Report("; ".join(words), ended=all(state.split()[0] in ENDED for state in states.values()))


class _NoAnswerError(Exception):
    """Failure of a SLURM command. The text is its last line."""


def _states(ids: Sequence[str]) -> dict[str, str]:
    """State and reason of each job, such as `PENDING (Resources)`."""
    if not ids:
        return {}
    jobs = f"--jobs={','.join(ids)}"
    try:
        lines = _ask("squeue", "--noheader", "--states=all", "--format=%i|%T|%r", jobs)
    except _NoAnswerError as error:
        if "Invalid job id" not in str(error):  # squeue's answer for a single job that it has forgotten
            raise
        lines = []
    states = _read(lines)
    forgotten = [job for job in ids if job not in states]
    if forgotten:
        states |= dict.fromkeys(forgotten, "COMPLETED (no longer in the queue)") | _accounted(forgotten)
    return states


def _accounted(ids: Sequence[str]) -> dict[str, str]:
    """State of ended jobs in SLURM's accounting, where a cluster keeps one."""
    try:
        lines = _ask(
            "sacct",
            "--noheader",
            "--parsable2",
            "--allocations",
            "--format=JobID,State,Reason",
            f"--jobs={','.join(ids)}",
        )
    except _NoAnswerError:
        return {}
    # The accounting can lag behind the queue, which knows that these jobs have ended.
    return {job: state for job, state in _read(lines).items() if state.split()[0] in ENDED}


def _read(lines: list[str]) -> dict[str, str]:
    states = {}
    for line in lines:
        job, state, reason = line.split("|", 2)
        states[job] = f"{state} ({reason})" if reason not in ("", "None") else state
    return states


def _by_state(states: dict[str, str]) -> list[str]:
    """Return a text per state, with the first jobs in it."""
    jobs: dict[str, list[str]] = {}
    for job, state in states.items():
        jobs.setdefault(state, []).append(job)
    texts = []
    for state, alike in jobs.items():
        more = f" and {len(alike) - JOBS_NAMED} more" if len(alike) > JOBS_NAMED else ""
        texts.append(f"{'job' if len(alike) == 1 else 'jobs'} {', '.join(alike[:JOBS_NAMED])}{more}: {state}")
    return texts


def _ask(*command: str) -> list[str]:
    """Return the lines that a SLURM command prints."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise _NoAnswerError(f"{command[0]} does not answer") from None
    except OSError as error:
        raise _NoAnswerError(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise _NoAnswerError(f"{command[0]}: {last}")
    return done.stdout.splitlines()
