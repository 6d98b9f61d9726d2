"""Sensitivity of pictures to each value of a triplane; an L1 of triplanes ignores what a renderer shows."""

import torch
from torch import Tensor

from models.three_d.live3d import TriplaneModel


def squared_sensitivity(
    model: TriplaneModel, triplane: Tensor, cameras: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """The squared derivatives of all values of the pictures by each value of the triplane, summed; an estimate.

    triplane: (B, 3*C, h, w).  cameras: (B, 25).  generator: on the CPU.  Returns (3*C, h, w), summed over the batch.
    For g ~ N(0, 1), the gradient of g . picture has J^T J's diagonal as its mean square (Hutchinson 1989): one backward
    pass in place of one for each pixel. Its standard deviation is sqrt(2) of its mean, so take many pictures.
    """
    with torch.enable_grad():
        seen = triplane.detach().requires_grad_(True)
        image = model.render(seen, cameras).image
        weights = torch.randn(image.shape, generator=generator).to(image.device)
        (gradient,) = torch.autograd.grad((image * weights).sum(), seen)
    return gradient.square().sum(dim=0)
