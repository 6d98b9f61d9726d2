"""The curve of a training: the means of its losses between two points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

COLUMNS = ("loss", "loss_2d", "loss_view", "loss_triplane", "loss_depth", "lr", "val_l1", "val_lpips")


@dataclass
class Curve:
    """Means of the losses between two points; `pending` holds the steps since the last point.

    Their losses stay on the device, as tensors, until they are asked for: no step waits to be logged.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    pending: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        """The points, and the losses since the last one as numbers."""
        return {"rows": self.rows, "pending": self.read()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.pending = state_dict["rows"], state_dict["pending"]

    def read(self) -> list[dict[str, float]]:
        """The pending steps' losses, brought to the host in one transfer."""
        there = [(each, name) for each in self.pending for name, value in each.items() if isinstance(value, Tensor)]
        if there:
            values = torch.stack([each[name] for each, name in there]).tolist()
            for (each, name), value in zip(there, values, strict=True):
                each[name] = value
        return self.pending

    def point(self, step: int, extra: dict[str, float]) -> dict[str, float]:
        """Close a point of the curve. Every point has the same columns; what was not measured is None."""
        values, pending = dict(extra), self.read()
        for name in COLUMNS:
            seen = [each[name] for each in pending if name in each]
            values |= {name: sum(seen) / len(seen)} if seen else {}
        self.pending = []
        self.rows.append({"step": step} | dict.fromkeys(COLUMNS) | values)
        return values

    def last(self) -> dict[str, float]:
        """The newest value of each column."""
        newest: dict[str, float] = {}
        for row in self.rows:
            newest |= {name: value for name, value in row.items() if value is not None and name != "step"}
        return newest
