"""Keys of samples. A separate file: the code of shards may change without rerunning earlier stages."""

from __future__ import annotations

import re

KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,95}")


def sample_key(portrait_id: str, style: str, prompt_number: int, attempt: int = 0) -> str:
    """`<portrait id>-<style slug>-<prompt number>-<attempt>`."""
    key = f"{portrait_id}-{style}-{prompt_number}-{attempt}"
    if not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no sample key")
    return key


def key_portrait(key: str) -> str:
    """Return the portrait's id, with which a sample's key begins."""
    return key.partition("-")[0]
