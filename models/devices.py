"""Devices that torch can use on this machine."""

from __future__ import annotations

import torch


def device_problem(device: str) -> str | None:
    """Return why torch cannot use a device here; None where it can."""
    try:
        wanted = torch.device(device)
    except RuntimeError:
        return "torch knows no such device"
    if wanted.type == "cpu":
        return None
    if wanted.type == "mps":
        return None if torch.backends.mps.is_available() else "torch sees no such device here"
    module = getattr(torch, wanted.type, None)
    count = module.device_count() if module is not None and module.is_available() else 0
    if count == 0:
        return "torch sees no such device here"
    if wanted.index is not None and wanted.index >= count:
        return f"torch sees {count} of them here, and counts from 0"
    return None
