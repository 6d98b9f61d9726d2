"""Background processes of ours: noted when started, found again by the note; only these are ended.

A note counts only in the folder where it was written. A copied data root has copies of the notes, whose processes
belong to the original. Processes of a data root that was moved while they ran are ended before new ones start.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from data_catalog.config.errors import UserError
from data_catalog.store.fingerprint import write_atomically


@dataclass(frozen=True)
class Service:
    """Process started from the code in `checkout`, noted in the folder `home`."""

    name: str
    pid: int
    started: float
    url: str
    log: str
    home: str
    checkout: str

    def alive(self) -> bool:
        return is_alive(self.pid, self.started)

    def moved(self, folder: Path) -> bool:
        """Whether the note lies elsewhere than it was written, and not at that place as well.

        The folder itself may be there again: a service that runs while its root is moved makes folders of its own.
        """
        return Path(self.home) != folder.resolve() and not _note(Path(self.home), self.name).exists()


def _note(folder: Path, name: str) -> Path:
    return folder / f"{name}.service.json"


def is_alive(pid: int, started: float) -> bool:
    """Whether the process still runs. `started` tells it from a later process with the same number."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def find_service(folder: Path, name: str) -> Service | None:
    """Find the running service noted in `folder`; remove the note of a dead process, or of a copied folder."""
    note = _note(folder, name)
    try:
        service = Service(**json.loads(note.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    ours = Path(service.home) == folder.resolve() or service.moved(folder)
    if ours and service.alive():
        return service
    note.unlink(missing_ok=True)
    return None


def start_service(
    folder: Path,
    name: str,
    command: Sequence[str],
    env: dict[str, str],
    url: str = "",
    cwd: Path | None = None,
) -> Service:
    """Start `command` in a session of its own, its output in `<folder>/<name>.log`, and note its process."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            cwd=cwd,
            start_new_session=True,
        )
    created = psutil.Process(process.pid).create_time()
    service = Service(name, process.pid, created, url, str(log), str(folder), str(cwd or Path.cwd()))
    write_atomically(_note(folder, name), json.dumps(asdict(service)).encode())
    return service


def wait_until(ready: Callable[[], bool], service: Service, seconds: float) -> None:
    """Poll `ready`; a service that dies or takes too long is reported with the end of its log."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not service.alive() or time.monotonic() > deadline:
            state = f"was not ready after {seconds:.0f} s" if service.alive() else "ended while it was starting"
            last = Path(service.log).read_text(errors="replace").strip().splitlines()[-3:]
            raise UserError(
                f"the service {service.name} {state}",
                log=service.log,
                says=" / ".join(last),
                hint="make down; make up",
            )
        time.sleep(0.2)


def stop_service(folder: Path, name: str, seconds: float = 10) -> bool:
    """End the noted process and its children. False if there was none."""
    service = find_service(folder, name)
    if service is None:
        return False
    end_process(service.pid, seconds)
    _note(folder, name).unlink(missing_ok=True)
    return True


def end_process(pid: int, seconds: float = 10) -> None:
    """Ask a process of ours and its children to end; after `seconds`, kill the remaining ones."""
    try:
        parent = psutil.Process(pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in family:
        _signal(process.terminate)
    for process in psutil.wait_procs(family, timeout=seconds)[1]:
        # Processes that it has started since then would outlive it.
        with suppress(psutil.NoSuchProcess):
            for child in process.children(recursive=True):
                _signal(child.kill)
        _signal(process.kill)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
