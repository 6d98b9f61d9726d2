"""Losses of distillation (3DPE, section 3.2), on triplane and views."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from models.three_d.live3d import Render
from models.three_d.recompute import in_parts

PerceptualDistance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """L = lambda_2d * L2D + lambda_3d * L3D; the others weigh the terms inside."""

    lambda_2d: float = 1.0
    lambda_3d: float = 1.0
    image_l2: float = 1.0
    image_lpips: float = 2.0  # weight inside L2D
    view_lpips: float = 2.0  # weight inside L3D's views
    triplane: float = 1.0
    depth: float = 1.0


class ViewTarget(NamedTuple):
    """Target of a view."""

    image: Tensor  # (B, 3, H, H) in [-1, 1]
    depth: Tensor  # (B, 1, h, h) world units along the ray


def image_loss(image: Tensor, target: Tensor, perceptual: PerceptualDistance, l2: float, lpips: float) -> Tensor:
    """L2 and LPIPS, by their weights, of pictures (B, 3, H, H) in [-1, 1]; a scalar."""
    loss = l2 * (image - target).square().mean()
    if not lpips:
        return loss
    return loss + lpips * in_parts(perceptual, image, target, pixels=image.shape[-1] ** 2).mean()


def depth_loss(render: Render, target: Tensor) -> Tensor:
    """Return the L1 of depths where the student's view is not empty: behind empty space depth is undefined.

    target: (B, 1, h, h) world units along the ray. Every sample has the same weight, whatever its batch.
    """
    seen = render.opacity.detach()
    error = (render.depth - target).abs() * seen
    return (error.sum(dim=(1, 2, 3)) / seen.sum(dim=(1, 2, 3)).clamp_min(1.0)).mean()


def triplane_loss(triplane: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
    """Return the L1 of triplanes (B, 3*C, h, w).  counts: weights (B, 1 or 3*C, h, w), about 1 in the mean."""
    error = (triplane - target).abs()
    return error.mean() if counts is None else (error * counts).mean()


def distillation_loss(
    triplane: Tensor,
    portrait_view: Render,
    novel_views: list[Render],
    target_triplane: Tensor,
    target_portrait_view: ViewTarget,
    target_views: list[ViewTarget],
    perceptual: PerceptualDistance,
    weights: LossWeights,
    counts: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Equation 5: the portrait's own view (L2D), and the triplane with other views of it (L3D).

    triplane, target_triplane: (B, 3*C, h, w). counts: see `triplane_loss`.
    Returns the loss and its unweighted parts.
    """
    assert len(novel_views) == len(target_views) > 0
    count = len(novel_views)
    image = portrait_view.image, target_portrait_view.image
    seen = image_loss(*image, perceptual, weights.image_l2, weights.image_lpips)
    views = [
        image_loss(view.image, target.image, perceptual, weights.image_l2, weights.view_lpips)
        for view, target in zip(novel_views, target_views, strict=True)
    ]
    depths = [depth_loss(portrait_view, target_portrait_view.depth)]
    depths += [depth_loss(view, target.depth) for view, target in zip(novel_views, target_views, strict=True)]
    parts = {
        "loss_2d": seen,
        "loss_view": sum(views[1:], views[0]) / count,
        "loss_triplane": triplane_loss(triplane, target_triplane, counts),
        "loss_depth": sum(depths[1:], depths[0]) / len(depths),
    }
    in_3d = parts["loss_view"] + weights.triplane * parts["loss_triplane"] + weights.depth * parts["loss_depth"]
    return weights.lambda_2d * seen + weights.lambda_3d * in_3d, parts
