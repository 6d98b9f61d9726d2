"""`stillroom serve`: the page and its process. Everything that it writes is below the data root."""

import ipaddress
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from data_catalog.config.errors import UserError
from data_catalog.config.places import looked_in
from data_catalog.products.snapshot import list_snapshots
from data_catalog.workspace import Workspace
from flows.page.shelf import Shelf
from tasks.processes import free_port

if TYPE_CHECKING:
    from fastapi import FastAPI

RUN, LOCK = "run-", "lock"  # a process's folder, and the file in it whose lock the process holds
PORT = 7860  # default port, if it is free
# No Gradio account, version check, sharing, or fonts and scripts from other servers.
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}

log = logging.getLogger(__name__)


def prepare(host: str, port: int | None, workspace: Workspace, student: str | None = None) -> dict[str, Any]:
    """Describe what will be served, and where. Warns if other machines can reach it.

    student: the one to show first, by the names of `Student.load`; None for the one of the settings.
    Raises UserError if there is nothing to show, no such student, or the address cannot be used.
    """
    if find_spec("gradio") is None:
        raise UserError("the page needs Gradio", hint="pip install 'stillroom[serve]'")
    choices, datasets = Shelf(workspace, student).choices(), len(list_snapshots(workspace.root))
    if not choices and not datasets:
        raise UserError("there is no student and no dataset yet", **looked_in(workspace.root, "make demo"))
    address, port = resolve(host), port or free_port(PORT)
    if not address.is_loopback:
        log.warning(
            "warning: %s is not loopback. Anyone who can reach this machine can use the page, see its datasets and "
            "upload pictures; there is no password.",
            host,
        )
    check_port(address, port)
    shown = f"[{host}]" if ":" in host else host
    first = choices[0].student if choices and (choices[0].own or student is not None) else None
    if first is None:
        log.warning("there is no student of these settings; the page shows those of other settings")
    counts = {"student": first, "students": len(choices), "datasets": datasets}
    return {"url": f"http://{shown}:{port}", "host": host, "port": port, **counts}


def serve(host: str, port: int, workspace: Workspace, student: str | None = None) -> None:
    """Show the page until interrupted."""
    with own_folder(workspace.root):
        import uvicorn

        app = make_app(workspace, student)
        # uvicorn ends the page in good order, then raises the signal again: the folder must be removed before.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        log.info("ready; Ctrl+C ends it")
        uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)


def make_app(workspace: Workspace, student: str | None = None) -> "FastAPI":
    """Build the page as an application behind its filter. Gradio's folder for files comes from `own_folder`."""
    from fastapi import FastAPI

    from flows.page.doors import Doors
    from flows.page.layout import mount_page

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = mount_page(app, Shelf(workspace, student))
    app.add_middleware(Doors)
    return app


@contextmanager
def own_folder(root: Path) -> Iterator[Path]:
    """Yield a folder below the data root for uploads and other files of this process; removed when it ends."""
    sweep(root / "page")
    with tempfile.TemporaryDirectory(dir=root / "page", prefix=RUN) as made, FileLock(Path(made) / LOCK):
        folder = Path(made).resolve()
        places = {
            "GRADIO_TEMP_DIR": folder / "files",
            "GRADIO_EXAMPLES_CACHE": folder / "examples",
            "TMPDIR": folder,
            "MPLCONFIGDIR": root.resolve() / "page" / "matplotlib",  # its list of fonts takes seconds to make
        }
        os.environ.update(QUIET | {name: str(place) for name, place in places.items()})
        (folder / "files").mkdir()
        before, tempfile.tempdir = tempfile.tempdir, str(folder)
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def sweep(page: Path) -> None:
    """Remove the folders of killed processes; running ones hold their locks."""
    page.mkdir(parents=True, exist_ok=True)
    for folder in page.glob(f"{RUN}*"):
        with suppress(Timeout), FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def resolve(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of a host name of this machine."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise UserError(f"there is no host '{host}'", expected="127.0.0.1, or an address of this machine") from None
    return ipaddress.ip_address(found[0][4][0])


def check_port(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    """Raise UserError if the address cannot be listened on."""
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {address}, port {port}: {error.strerror}", hint="another --port, or none"
            ) from None
