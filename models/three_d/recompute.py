"""A function of many pictures, part by part: the backward pass computes each part again instead of holding it."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Made = TypeVar("Made")
PIXELS_AT_ONCE = 2**18  # of all pictures together: one of 512x512, and hundreds of the embedded world's


def in_parts(function: Callable[..., Tensor], *pictures: Tensor, pixels: int) -> Tensor:
    """Return `function(*pictures)`, whose results belong to the pictures one by one.

    pictures: (B, ...) each.  pixels: of one picture, which decide how many are computed together.
    """
    together = max(1, PIXELS_AT_ONCE // pixels)
    if len(pictures[0]) <= together:
        return function(*pictures)
    parts = zip(*(each.split(together) for each in pictures), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([function(*part) for part in parts])
    return torch.cat([again(function, *part) for part in parts])


def again(function: Callable[..., Made], *given: Any) -> Made:
    """Return `function(*given)`, which draws no random numbers; its backward pass computes it again."""
    return cast(Made, checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False))
