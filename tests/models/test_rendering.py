"""Seeing some rays at a time, and sampling planes row by row, changes nothing but time and memory."""

import pytest
import torch
import torch.nn.functional as F

from benchmarks.renderer import differences, scene
from models.three_d import rendering
from models.three_d.rendering import RayOptions, VolumeRenderer, sample_planes


def test_the_renderer_sees_what_one_built_as_eg3ds_sees() -> None:
    found = differences(12, "cpu")
    assert found["forward"] < 1e-5
    assert found["training"] < 1e-4  # sums in another order


def test_some_rays_at_a_time_give_the_same_pictures_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    planes, decoder, origins, directions = scene(8, "cpu")
    volume = VolumeRenderer(RayOptions(coarse_samples=12, fine_samples=8))
    noise = volume.noise(1, 64, torch.Generator().manual_seed(0))
    found = []
    for at_once in (2**20, 20 * 10):  # ten rays of the 64, so that the last part is smaller
        monkeypatch.setattr(rendering, "SAMPLES_AT_ONCE", at_once)
        given = planes.clone().requires_grad_(True)
        seen = volume(given, decoder, origins, directions, noise)
        loss = seen.features.square().mean() + (seen.depth * seen.opacity).mean()
        found.append([*(part.detach() for part in seen), *torch.autograd.grad(loss, [given, *decoder.parameters()])])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("at_once", [1, 100])  # each head's points alone; both heads' together
def test_planes_are_sampled_as_by_grid_sample_also_outside(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(rendering, "POINTS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    planes = torch.randn(2, 12, 7, 9, generator=generator).requires_grad_(True)
    points = 1.3 * (torch.rand(2, 50, 3, generator=generator) - 0.5)
    axes = rendering.EG3D_AXES
    places = [torch.stack([2 * points[..., a], 2 * points[..., b]], dim=-1) for a, b in axes]
    split = planes.unflatten(1, (3, 4)).unbind(1)
    parts = [F.grid_sample(p, at[:, None], align_corners=False)[:, :, 0] for p, at in zip(split, places, strict=True)]
    expected = (sum(parts) / 3).transpose(1, 2)
    found = sample_planes(planes, points, RayOptions())
    torch.testing.assert_close(found, expected)
    weights = torch.randn(2, 50, 4, generator=generator)
    wanted, got = (torch.autograd.grad((each * weights).sum(), planes)[0] for each in (expected, found))
    torch.testing.assert_close(got, wanted)
