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


@pytest.mark.parametrize(("rays", "parts"), [(10, 3 * 7), (64, 3), (129, 2)])  # the last part is smaller
def test_some_rays_at_a_time_give_the_same_pictures_and_gradients(
    monkeypatch: pytest.MonkeyPatch, rays: int, parts: int
) -> None:
    planes, decoder, origins, directions = (
        each if callable(each) else each.repeat(3, *[1] * (each.ndim - 1)) for each in scene(8, "cpu")
    )
    planes = planes * torch.tensor([1.0, 0.5, -1.0]).view(3, 1, 1, 1)
    volume = VolumeRenderer(RayOptions(coarse_samples=12, fine_samples=8))
    noise = volume.noise(3, 64, torch.Generator().manual_seed(0))
    calls: list[torch.Size] = []
    render = volume._render
    monkeypatch.setattr(volume, "_render", lambda *given: (calls.append(given[2].shape), render(*given))[1])
    found = []
    for at_once in (2**20, 20 * rays):
        monkeypatch.setattr(rendering, "SAMPLES_AT_ONCE", {"cpu": at_once})
        calls.clear()
        given = planes.clone().requires_grad_(True)
        seen = volume(given, decoder, origins, directions, noise)
        loss = seen.features.square().mean() + (seen.depth * seen.opacity).mean()
        if at_once == 20 * rays:
            assert len(calls) == parts
            assert max(size[0] * size[1] for size in calls) <= rays
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
