"""LPIPS on AlexNet (Zhang et al. 2018), as 3DPE trains with it: the backbone from torchvision's published file.

The `lpips` package brings the linear weights; only the backbone it would download.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor

from models.judges.perceptual import Perceptual
from models.libraries import lpips

# AlexNet's convolutions by their places in `features`.
LAYERS = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
SHAPES: dict[str, tuple[int, ...]] = {
    f"features.{layer}.{kind}": shape if kind == "weight" else shape[:1]
    for layer, shape in LAYERS.items()
    for kind in ("weight", "bias")
}
# The layers of AlexNet's `features` that the package keeps, by the slice in which it keeps them.
SLICES = {"slice1": (0, 1), "slice2": (2, 3, 4), "slice3": (5, 6, 7), "slice4": (8, 9), "slice5": (10, 11)}


def untrained() -> Perceptual:
    """The metric with a backbone of random weights."""
    with warnings.catch_warnings():
        # lpips asks torchvision for its network in words that torchvision has deprecated.
        warnings.simplefilter("ignore", UserWarning)
        metric = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    return Perceptual(metric.requires_grad_(False), "lpips_alex").eval()


def from_state(state: Mapping[str, Tensor]) -> Perceptual:
    """The metric on the backbone in `alexnet-owt-7be5be79.pth`. Raises KeyError naming a layer it lacks."""
    perceptual = untrained()
    metric = perceptual.metric
    renamed = {
        f"{part}.{layer}.{kind}": state[f"features.{layer}.{kind}"]
        for part, layers in SLICES.items()
        for layer in layers
        if any(key.startswith(f"{part}.{layer}.") for key in metric.net.state_dict())
        for kind in ("weight", "bias")
    }
    metric.net.load_state_dict(renamed)
    return perceptual
