"""The 3D reconstructor: views, rays and resolutions."""

import torch

from models import procedural
from models.camera import orbit_label
from models.three_d import live3d
from models.zoo import zoo


def test_a_view_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    model = live3d.Live3D(live3d.EMBEDDED).eval()
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    cameras = orbit_label(torch.tensor([-0.3, 0.0, 0.3]), 0.1)
    with torch.no_grad():
        together = model.render(model.encode(images), cameras)
        alone = model.render(model.encode(images[1:2]), cameras[1:2])
    assert together.image.shape == (3, 3, 64, 64)
    assert torch.allclose(together.image[1:2], alone.image, atol=1e-4)
    assert torch.allclose(together.depth[1:2], alone.depth, atol=1e-4)


def test_some_rays_are_those_of_the_whole_view() -> None:
    torch.manual_seed(0)
    model = live3d.Live3D(live3d.EMBEDDED).eval()
    triplane, cameras = torch.randn(2, 36, 64, 64), orbit_label(torch.tensor([-0.3, 0.3]), 0.1)
    pixels = torch.tensor([[0, 40, 1023], [7, 8, 9]])
    whole, some = model.render(triplane, cameras), model.render_rays(triplane, cameras, pixels)
    chosen = pixels[:, None].expand(-1, 16, -1)
    expected = whole.features.flatten(2).gather(2, chosen).transpose(1, 2)
    assert torch.allclose(some.features * 2 - 1, expected, atol=1e-5)


def test_an_image_seen_in_two_resolutions_is_the_image() -> None:
    teacher = zoo.load("teacher", "embedded")
    label = orbit_label(0.0, 0.0)
    portrait = procedural.render(procedural.portrait(7), label[0], 64).rgb.permute(2, 0, 1)[None] * 2 - 1
    cameras = orbit_label(torch.tensor([-0.3, 0.3]), 0.1)
    with torch.no_grad():
        triplane = teacher.encode(portrait).expand(2, -1, -1, -1)
        quick = teacher.render(triplane, cameras)
    whole = teacher.render(triplane, cameras)
    assert float((quick.image - whole.image).square().mean()) < 10**-3.5 * 4  # 35 dB: 22 to the truth
    solid = whole.opacity > 0.5
    assert float((quick.depth - whole.depth)[solid].abs().mean()) < 0.01
    assert float((quick.opacity - whole.opacity).abs().mean()) < 0.01


def test_a_generator_makes_the_same_random_view_again() -> None:
    torch.manual_seed(0)
    model = live3d.Live3D(live3d.EMBEDDED).eval()
    triplane, cameras = torch.randn(1, 36, 64, 64), orbit_label(0.2, 0.0)
    with torch.no_grad():
        first, again = (model.render(triplane, cameras, torch.Generator().manual_seed(5)).image for _ in range(2))
        other = model.render(triplane, cameras, torch.Generator().manual_seed(6)).image
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_tiny_teacher_overfits_one_view() -> None:
    torch.manual_seed(0)
    model = live3d.Live3D(live3d.EMBEDDED)
    images = torch.zeros(1, 3, 64, 64)
    images[:, 0, 16:48, 16:48] = 1.0
    cameras, generator = orbit_label(0.0, 0.0), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(25):
        loss = (model.render(model.encode(images), cameras, generator).image - images).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
