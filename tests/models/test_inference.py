"""The student in the form in which it is used on a CPU."""

import pytest
import torch

from models.camera import orbit_label
from models.three_d import live3d, student
from models.three_d.inference import CpuStudent, for_use
from models.three_d.live3d import Live3D
from models.three_d.student import Student


@pytest.fixture(scope="module")
def trained() -> Student:
    torch.manual_seed(0)
    pupil = Student.from_teacher(Live3D(live3d.EMBEDDED)).eval()
    torch.nn.init.normal_(pupil.encoder.Ref_encoder.proj_tail.weight, std=0.1)  # else the prompt changes nothing
    return pupil.requires_grad_(False)


@pytest.fixture(scope="module")
def quick(trained: Student) -> CpuStudent:
    form = for_use(trained)
    assert isinstance(form, CpuStudent)
    return form


@pytest.mark.parametrize(("kind", "pictures", "length"), [("text", 1, 16), ("image", 1, 5), ("text", 3, 9)])
def test_the_graph_computes_what_the_network_computes(
    kind: student.PromptKind, pictures: int, length: int, trained: Student, quick: CpuStudent
) -> None:
    rng = torch.Generator().manual_seed(pictures)
    images = torch.rand(pictures, 3, 64, 64, generator=rng) * 2 - 1
    size = student.EMBEDDED.text_token_size if kind == "text" else student.EMBEDDED.image_token_size
    tokens = torch.randn(pictures, length, size, generator=rng)
    expected = trained.encode(images, tokens, kind)
    triplane = quick.encode(images, tokens, kind)
    assert float((triplane - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    unprompted = quick.encode(images, tokens.flip(1) * 0, kind)
    assert not torch.allclose(triplane, unprompted, atol=1e-3)


def test_one_prompt_serves_many_portraits_and_views_are_the_networks(trained: Student, quick: CpuStudent) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(4)) * 2 - 1
    tokens = torch.ones(1, 4, student.EMBEDDED.text_token_size)
    triplane = quick.encode(images, tokens, "text")
    cameras = orbit_label(torch.tensor([0.2, -0.1]), 0.0)
    with torch.no_grad():
        expected = trained.render(triplane, cameras)
    view = quick.render(triplane, cameras)
    assert torch.equal(view.depth, expected.depth)
    torch.testing.assert_close(view.image, expected.image, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(triplane[1:], quick.encode(images[1:], tokens, "text"), rtol=1e-4, atol=1e-4)
