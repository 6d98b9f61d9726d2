"""Processes that work together: their end with the process that began them, and a port for them to meet at."""

import os
import socket
import threading
from multiprocessing import parent_process
from random import SystemRandom

from data_catalog.config.errors import UserError

PORTS = range(20_000, 30_000)  # below those that systems give to connections


def end_with_parent() -> None:
    """End this process as soon as its parent is gone, however it died."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` if it is free on loopback, else a free port that no connection is given meanwhile."""
    others = SystemRandom().sample(PORTS, 100)
    for port in others if preferred is None else [preferred, *others]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UserError("no free port on 127.0.0.1")
