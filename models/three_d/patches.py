"""Square patches of views: a quarter of the rays trains nearly as well as all of them and costs a quarter.

Each sample has its own generator, so its patches depend neither on its batch nor on the number of processes.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from models.three_d.live3d import Render, TriplaneModel, TriplaneRenderer
from models.three_d.recompute import in_parts
from models.three_d.rendering import SamplingNoise


def draw_corners(views: int, resolution: int, rays: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Upper left corners, row and column, of patches `rays` across in views `resolution` rays across.

    Returns (V, B, 2) for one generator a sample.
    """
    places = resolution - rays + 1
    if places < 1:
        raise ValueError(f"a patch of {rays} rays does not fit into {resolution}")
    drawn = [torch.randint(places, (views, 2), generator=each, device=each.device) for each in generators]
    return torch.stack(drawn, dim=1)


def draw_noise(model: TriplaneModel, views: int, rays: int, generators: Sequence[torch.Generator]) -> SamplingNoise:
    """Noise of V views of each sample, (V * B, rays * rays, ...), view by view."""
    drawn = [model.renderer.volume.noise(views, rays * rays, each) for each in generators]
    return SamplingNoise(*(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*drawn, strict=True)))


def render_patches(
    model: TriplaneModel, triplane: Tensor, cameras: Tensor, corners: Tensor, rays: int, noise: SamplingNoise
) -> Render:
    """Render one patch of each view.

    triplane: (B, 3*C, h, w).  cameras: (B, 25).  corners: (B, 2).  Returns images (B, 3, P, P) of `rays` rays across.
    """
    renderer = model.renderer
    resolution = renderer.config.resolution
    inside = torch.arange(rays, device=corners.device)
    rows, columns = corners[:, :1] + inside, corners[:, 1:] + inside
    pixels = (rows[:, :, None] * resolution + columns[:, None]).flatten(1)
    seen = renderer.render_rays(triplane, cameras, pixels, noise)
    shape = (len(triplane), -1, rays, rays)
    features = (seen.features * 2 - 1).transpose(1, 2).reshape(shape)
    image_raw = features[:, :3]
    scale = renderer.config.image_size // resolution
    image = in_parts(partial(_upsample, renderer), image_raw, features, pixels=(scale * rays) ** 2)
    return Render(image, image_raw, seen.depth.view(shape), seen.opacity.view(shape), features)


def _upsample(renderer: TriplaneRenderer, image: Tensor, hidden: Tensor) -> Tensor:
    """Super-resolution of patches.  image: (B, 3, h, h).  hidden: (B, F, h, h), the features."""
    # The blocks one by one: called as a whole, super-resolution would first stretch the patch to a view's size.
    style = renderer.const[0][:, None].expand(-1, 3, -1)
    for name in renderer.superresolution.names:
        hidden, image = renderer.superresolution.get_submodule(name)(hidden, image, style, "none", None)
    return image


def crop(images: Tensor, corners: Tensor, rays: int, resolution: int) -> Tensor:
    """Crop the same patches from pictures (B, C, H, H); H is `resolution` or a multiple. Returns (B, C, P, P)."""
    scale = images.shape[-1] // resolution
    inside = torch.arange(rays * scale, device=images.device)
    rows, columns = scale * corners[:, :1] + inside, scale * corners[:, 1:] + inside
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images[batch, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
