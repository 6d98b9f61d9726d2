"""Steadying the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

REACH = 3  # frames to each side that steady a frame
STEADY_SIGMA_S = 0.06
# A neighbour that differs by more than this part of the triplane's own size has moved: a mouth, not an error.
# Larger values still a talking mouth, smaller ones leave the tremor.
TOLERANCE = 0.025


def steady(triplanes: Sequence[Tensor], seconds: np.ndarray, centre: int) -> Tensor:
    """The triplane of one frame, steadied by its neighbours': a bilateral filter over time.

    A triplane lies in the head's own frame: when a head turns, its triplane stays, and what trembles from frame to
    frame is mostly the encoder's error. triplanes: K of (1, 3*C, h, w).  seconds: (K,).  Returns (1, 3*C, h, w).
    """
    _, _, height, width = triplanes[centre].shape
    planes = [triplane.view(3, -1, height, width) for triplane in triplanes]
    own = planes[centre]
    per_square = -0.5 / (own.square().mean() * TOLERANCE**2)
    apart = -0.5 * np.square((seconds - seconds[centre]) / STEADY_SIGMA_S)
    summed, weights = own.clone(), own.new_ones(3, 1, height, width)
    for number, other in enumerate(planes):  # one after the other: all at once would not stay in a CPU's cache
        if number != centre:
            difference = (other - own).square_().mean(dim=1, keepdim=True)  # (3, 1, h, w)
            weight = difference.mul_(per_square).add_(apart[number]).exp_()
            summed.addcmul_(weight, other)
            weights += weight
    return summed.div_(weights).view(1, -1, height, width)
