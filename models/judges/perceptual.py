"""LPIPS (Zhang et al. 2018) by the `lpips` package, with a backbone that needs no download.

The package downloads its own backbones. The embedded world has a SqueezeNet trained to tell the world's looks and
people apart. Its levels have equal weights (the package's `lpips=False`, "baseline" in the paper), since the published
linear weights belong to other features. The metric is named by its backbone: `lpips_embedded`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Self

from safetensors.torch import load_file
from torch import Tensor, nn

from models.libraries import lpips

FEATURES_FILE = "squeezenet.safetensors"


class Perceptual(nn.Module):
    """Perceptual distance between pictures in [-1, 1]."""

    def __init__(self, metric: lpips.LPIPS, name: str) -> None:
        super().__init__()
        self.metric = metric
        self.name = name

    @classmethod
    def untrained(cls) -> Self:
        """Return the embedded metric with an untrained backbone."""
        with warnings.catch_warnings():
            # lpips asks torchvision for its network in words that torchvision has deprecated.
            warnings.simplefilter("ignore", UserWarning)
            metric = lpips.LPIPS(net="squeeze", lpips=False, pnet_rand=True, pretrained=False, verbose=False)
        return cls(metric.requires_grad_(False), "lpips_embedded")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The embedded metric with the backbone in `folder`."""
        metric = cls.untrained()
        state = {key: value.float() for key, value in load_file(folder / FEATURES_FILE).items()}
        metric.metric.net.load_state_dict(state)
        return metric.eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """first, second: (B, 3, H, W) in [-1, 1].  Returns (B,) distances, 0 for equal pictures."""
        return self.metric(first, second).flatten()
