"""Background processes of ours: noted when started, found again by the note; only they are ended."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from data_catalog.errors import UserError


@dataclass(frozen=True)
class Service:
    """A process that we started. `started` tells it from another process that later got the same number."""

    name: str
    pid: int
    started: float
    url: str
    log: str

    def alive(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def find_service(folder: Path, name: str) -> Service | None:
    """The running service noted in `folder`, or None; a note left by a dead process is removed."""
    note = folder / f"{name}.service.json"
    try:
        service = Service(**json.loads(note.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
    if service.alive():
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
    """Start `command` in a session of its own, its output in `<folder>/<name>.log`, and note who it is."""
    folder.mkdir(parents=True, exist_ok=True)
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
    service = Service(name, process.pid, psutil.Process(process.pid).create_time(), url, str(log))
    (folder / f"{name}.service.json").write_text(json.dumps(asdict(service)))
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
    parent = psutil.Process(service.pid)
    family = [*parent.children(recursive=True), parent]
    for process in family:
        _signal(process.terminate)
    for process in psutil.wait_procs(family, timeout=seconds)[1]:
        _signal(process.kill)
    (folder / f"{name}.service.json").unlink(missing_ok=True)
    return True


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return


def free_port(preferred: int) -> int:
    """`preferred` if nobody listens there on loopback, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UserError("no free port on 127.0.0.1")
