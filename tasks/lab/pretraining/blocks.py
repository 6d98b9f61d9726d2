"""Blocks of people, rendered once and kept as arrays: `<first seed>-<people>.npz`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Arrays = dict[str, np.ndarray]


def render_block(folder: Path, first_seed: int, count: int, render_person: Callable[[int], Arrays]) -> Path:
    """Render `count` people into one file, unless it exists. It is written under another name first."""
    path = folder / f"{first_seed}-{count}.npz"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    people = [render_person(seed) for seed in range(first_seed, first_seed + count)]
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        arrays: dict[str, Any] = {name: np.stack([person[name] for person in people]) for name in people[0]}
        np.savez(file, **arrays)
    part.rename(path)
    return path


def load_blocks(folder: Path, first_seed: int, count: int) -> Arrays:
    """Load the existing blocks of [first_seed, first_seed + count), in the order of their seeds."""
    blocks = []
    for path in sorted(folder.glob("*.npz"), key=_first_seed):
        if first_seed <= _first_seed(path) < first_seed + count:
            with np.load(path) as block:
                blocks.append({name: block[name] for name in block.files})
    if not blocks:
        raise FileNotFoundError(f"no pictures from seed {first_seed} on in {folder}")
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _first_seed(path: Path) -> int:
    return int(path.stem.split("-")[0])
