"""Square patches of views: a quarter of the rays trains nearly as well as all of them and costs a quarter."""

import torch
from torch import Tensor

from models.live3d import Render, TriplaneModel


def draw_corners(batch: int, resolution: int, rays: int, generator: torch.Generator) -> Tensor:
    """Upper left corners (B, 2), row and column, of patches `rays` across in views `resolution` rays across."""
    places = resolution - rays + 1
    assert places > 0, f"a patch of {rays} rays does not fit into {resolution}"
    return torch.randint(places, (batch, 2), generator=generator, device=generator.device)


def render_patches(
    model: TriplaneModel, triplane: Tensor, cameras: Tensor, corners: Tensor, rays: int, generator: torch.Generator
) -> Render:
    """One patch of each view, with random samples on the rays.

    triplane: (B, 3*C, h, w).  cameras: (B, 25).  corners: (B, 2).  Returns images (B, 3, P, P) of `rays` rays across.
    """
    renderer = model.renderer
    resolution = renderer.config.resolution
    inside = torch.arange(rays, device=corners.device)
    rows, columns = corners[:, :1] + inside, corners[:, 1:] + inside
    pixels = (rows[:, :, None] * resolution + columns[:, None]).flatten(1)
    seen = model.render_rays(triplane, cameras, pixels, generator)
    shape = (len(triplane), -1, rays, rays)
    features = (seen.features * 2 - 1).transpose(1, 2).reshape(shape)
    image_raw = features[:, :3]
    # The blocks one by one: called as a whole, super-resolution would first stretch the patch to a view's size.
    image, hidden = image_raw, features
    style = renderer.const[0][:, None].expand(-1, 3, -1)
    for name in renderer.superresolution.names:
        hidden, image = renderer.superresolution.get_submodule(name)(hidden, image, style, "none", None)
    return Render(image, image_raw, seen.depth.view(shape), seen.opacity.view(shape), features)


def crop(images: Tensor, corners: Tensor, rays: int, resolution: int) -> Tensor:
    """The same patches of pictures (B, C, H, H); H is `resolution` or a multiple. Returns (B, C, P, P)."""
    scale = images.shape[-1] // resolution
    inside = torch.arange(rays * scale, device=images.device)
    rows, columns = scale * corners[:, :1] + inside, scale * corners[:, 1:] + inside
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images[batch, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
