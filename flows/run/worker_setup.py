"""Setup of every worker process before its first partition: threads, GPU, log levels."""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin


class WorkerSetup(WorkerPlugin):
    """Plugin for present and later workers, including those that replace a dead one."""

    def __init__(self, environment: dict[str, str], threads: int, own_gpus: bool) -> None:
        """Prepare workers; own_gpus: they are numbered processes of this machine and share its GPUs."""
        self.environment, self.threads, self.own_gpus = environment, threads, own_gpus

    def setup(self, worker: Any) -> None:
        """Set up the worker's process, in which this runs."""
        os.environ.update(self.environment)
        if "torch" in sys.modules:  # it has read the environment at import
            sys.modules["torch"].set_num_threads(self.threads)
        gpus = visible_gpus() if self.own_gpus else []
        if gpus and str(worker.name).isdigit():
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(worker.name) % len(gpus)]
        # A failing job comes back as its outcome and is reported there.
        logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


def visible_gpus(devices: Path = Path("/dev")) -> list[str]:
    """CUDA's names of the GPUs that this process may use, found without loading CUDA."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    numbers = (re.fullmatch(r"nvidia(\d+)", path.name) for path in devices.iterdir())
    return sorted((found[1] for found in numbers if found), key=int)
