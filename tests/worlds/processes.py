"""Processes that tests fork, and kill at a chosen operation on the disk."""

import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Python announces each of these before it does it; `stillroom.half` is announced between two halves of a file.
OPERATIONS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "stillroom.half"}


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder whose fsync costs nothing, where the machine has one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


def fork(work: Callable[[], None]) -> int:
    """Do this in a copy of the process. It ends there, with status 0, or 1 after an exception."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def as_nobody() -> None:
    """Root may read and write everywhere: then the process becomes another user's."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def wait(process: int) -> int:
    """The exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def watch_disk(root: Path, hear: Callable[[str], None]) -> None:
    """Call `hear` before every operation that changes something below `root`, as `operation path`, for good."""
    prefix = str(root)

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event in OPERATIONS or (event == "open" and given[2] & WRITING):
            path = str(given[1] if event == "os.rename" else given[0])
            if path.startswith(prefix):
                hear(f"{event} {path[len(prefix) + 1 :]}")

    sys.addaudithook(hook)


def operations(root: Path, work: Callable[[], None]) -> list[str]:
    """List the disk operations of `work` below `root`, observed in a separate process."""
    log = root.parent / "operations.log"

    def listen() -> None:
        with log.open("w") as stream:
            watch_disk(root, lambda line: print(line, file=stream, flush=True))
            work()

    assert wait(fork(listen)) == 0
    return log.read_text().splitlines()


def kill_at(number: int, root: Path, work: Callable[[], None]) -> None:
    """Do `work` in another process, and end that with SIGKILL before its operation `number`, counted from 0."""

    def doomed() -> None:
        count = 0

        def hear(line: str) -> None:
            nonlocal count
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        watch_disk(root, hear)
        work()

    assert wait(fork(doomed)) == -signal.SIGKILL, f"it ended before operation {number}"
