"""Measures of how much an edited video trembles that should not.

`warp_error` needs nothing but the two clips: the edit should move as its input does (Lai et al. 2018, "Learning Blind
Video Temporal Consistency"). `tremor`, `motion` and `error` need the true edit of every frame, which the embedded
world has.
"""

import itertools
from collections.abc import Sequence

import numpy as np

FLOW_PX = 256  # pictures are enlarged to this side: optical flow does not see small ones well
OCCLUDED = 50.0  # weight exp(-50 d^2) where the input itself differs by d from its own warped past
MOVES = 8.0  # of 255, standard deviation over time of a pixel that moves
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def warp_error(inputs: Sequence[np.ndarray], edited: Sequence[np.ndarray]) -> float:
    """Mean absolute difference, of 255, between each edited frame and the one before it, moved as the input moved.

    inputs, edited: N pictures (H, W, 3) uint8 each, N > 1.  Places that the input uncovers count little.
    """
    import cv2

    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    sums = np.zeros(2)
    for (old_input, new_input), (old, new) in zip(_pairs(inputs), _pairs(edited), strict=True):
        flow = flow_of.calc(_grey(new_input), _grey(old_input), None)
        seen_before = _moved(old_input, flow)
        weight = np.exp(-OCCLUDED * np.square((seen_before - new_input) / 255.0).sum(axis=2))
        difference = np.abs(_moved(old, flow) - new).mean(axis=2)
        sums += [(weight * difference).sum(), weight.sum()]
    return float(sums[0] / sums[1])


def tremor(edited: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean change from frame to frame, of 255, where the truth stands still. Both from a camera that stands still."""
    changes = np.abs(np.diff(_floats(edited), axis=0)).mean(axis=3)
    still = np.abs(np.diff(_floats(truth), axis=0)).max(axis=3) <= 1
    return float(changes[still].mean())


def motion(edited: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Measure the share of the truth's own motion that the edit shows, which a filter over time must keep; 1 is all.

    The slope of the edit over the truth, both less their means, where the truth moves. From a camera that stands still.
    """
    given, true = (_floats(clip) - _floats(clip).mean(axis=0) for clip in (edited, truth))
    moves = true.std(axis=0).max(axis=2) > MOVES
    return float((given * true)[:, moves].sum() / np.square(true[:, moves]).sum())


def error(edited: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Mean absolute difference to the truth, of 255."""
    return float(np.abs(_floats(edited) - _floats(truth)).mean())


def sharpness(edited: Sequence[np.ndarray]) -> float:
    """Mean length of the luminance's gradient, of 255 per pixel: what ghosts and blur take away."""
    grey = _floats(edited) @ LUMA
    down, across = np.diff(grey, axis=1)[:, :, :-1], np.diff(grey, axis=2)[:, :-1]
    return float(np.hypot(down, across).mean())


def _floats(clip: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(list(clip)).astype(np.float32)


def _pairs(clip: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    import cv2

    size = (FLOW_PX, FLOW_PX)
    large = [cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(np.float32) for picture in clip]
    return list(itertools.pairwise(large))


def _grey(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture @ LUMA, 0, 255).astype(np.uint8)


def _moved(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """picture (H, W, 3) read at each pixel plus flow (H, W, 2), px."""
    import cv2

    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
    return np.asarray(cv2.remap(picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR))
