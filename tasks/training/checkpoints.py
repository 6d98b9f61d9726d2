"""Checkpoints of a training: the state of its parts, written whole, the newest readable one taken up again."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

log = logging.getLogger(__name__)

KEPT = 2  # the newest ones


class Part(Protocol):
    """Part of a training that a checkpoint holds: a network, an optimizer, a schedule, a curve."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Checkpoints:
    """Checkpoints of one training, in a folder of its own."""

    def __init__(self, folder: Path, parts: Mapping[str, Part], device: str = "cpu") -> None:
        self.folder, self.parts, self.device = folder, parts, device

    def save(self, step: int) -> None:
        """Write the parts as they are after so many steps."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "checkpoint.tmp"
        with temporary.open("wb") as stream:
            torch.save({name: part.state_dict() for name, part in self.parts.items()}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        # Rename last: a checkpoint that has its name is whole.
        temporary.rename(self.folder / f"checkpoint-{step:08d}.pt")
        for old in self._paths()[:-KEPT]:
            old.unlink()

    def resume(self) -> int:
        """Put the newest checkpoint that can be read into the parts; returns its step, 0 where there is none."""
        for path in reversed(self._paths()):
            try:
                state = torch.load(path, map_location=self.device, weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
                log.warning("%s cannot be read and is left out: %s", path.name, error)
                continue
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            step = int(path.stem.rpartition("-")[2])
            log.info("continuing after step %d", step)
            return step
        return 0

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("checkpoint-*.pt"))
