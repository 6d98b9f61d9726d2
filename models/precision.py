"""Precision of a device: bfloat16 where its hardware has it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def has_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware and so faster than float32; other devices emulate it."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16"))


def autocast(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Return the context for computing in a precision; `auto` is bfloat16 where the device has it."""
    halves = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.autocast(device.partition(":")[0], torch.bfloat16) if halves else nullcontext()
