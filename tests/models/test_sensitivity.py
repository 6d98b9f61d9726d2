"""Sensitivity of pictures to the values of a triplane."""

import torch
from torch import Tensor

from models.camera import orbit_label
from models.procedural.person import portrait
from models.procedural.render import render
from models.three_d.live3d import Render, TriplaneModel
from models.three_d.sensitivity import squared_sensitivity
from models.zoo import zoo


def test_the_sensitivity_of_a_linear_renderer_is_the_squares_of_its_matrix() -> None:
    matrix = torch.tensor([[0.0, 1.0], [3.0, 0.0], [0.0, 2.0]])  # of 2 triplane values in 3 of the picture

    class Linear(TriplaneModel):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

        def render(self, triplane: Tensor, cameras: Tensor, generator: torch.Generator | None = None) -> Render:
            image = torch.einsum("ij,bjhw->bihw", matrix, triplane)
            return Render(image, image, image, image, image)

    draws = 4000
    found = squared_sensitivity(Linear(), torch.zeros(draws, 2, 1, 1), torch.zeros(draws, 25), torch.Generator())
    torch.testing.assert_close(found.flatten() / draws, torch.tensor([9.0, 5.0]), rtol=0.1, atol=0.0)


def test_values_of_little_sensitivity_hardly_show() -> None:
    teacher, camera = zoo.load("teacher", "embedded"), orbit_label(0.1, 0.1)
    shown = render(portrait(3), orbit_label(0.0, 0.0)[0], 64).rgb
    with torch.no_grad():
        triplane = teacher.encode(shown.permute(2, 0, 1)[None] * 2 - 1)
    found = squared_sensitivity(teacher, triplane, camera, torch.Generator().manual_seed(0))
    shift = 0.1 * torch.randn(triplane.shape, generator=torch.Generator().manual_seed(0))
    strong = found > found.median()
    with torch.no_grad():
        plain, *moved = (
            teacher.render(triplane + shift * part, camera).image for part in (torch.zeros(()), strong, ~strong)
        )
    much, little = (float((each - plain).square().mean()) for each in moved)
    assert much > 10 * little
