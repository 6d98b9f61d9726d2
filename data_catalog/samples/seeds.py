"""Derived seeds: every random choice is keyed by its purpose, and no generator is shared."""

from __future__ import annotations

import hashlib
import json


def derive(*parts: str | int) -> int:
    """Seed in [0, 2**63): the first 63 bits of the sha256 of the canonical JSON of `parts`."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def fraction(*parts: str | int) -> float:
    """Uniform number in [0, 1) derived from `parts`, for frozen splits."""
    return (derive(*parts) >> 10) / 2**53
