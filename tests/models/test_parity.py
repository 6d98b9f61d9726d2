"""Networks compared with the reference implementations' outputs, under weights that a seed defines."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models import procedural
from models.camera import orbit_label
from models.three_d import live3d
from models.three_d.encoder import Live3DEncoder
from models.three_d.live3d import PAPER_LT, PAPER_NORMAL, config_of_public
from models.three_d.rendering import RayOptions, sample_planes
from models.zoo import zoo
from models.zoo.golden import Golden, weights
from models.zoo.parity import BUILDERS, CASES, TOLERANCE, ParityError, run_cases

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "golden"
# At full size a case takes many seconds; of these families one case, or a part of the network, runs always.
SLOW = re.compile(
    r"editing_e|live3d_encoder|eg3d_synthesis|discriminator|eg3d_sr|eg3d_backbone_1|triplane_renderer"
    r"|volume_renderer_[01]|live3d_sr_[02]"
)


def case_names(slow: bool) -> list[str]:
    return [path.stem for path in sorted(GOLDEN.glob("*.npz")) if bool(SLOW.match(path.stem)) == slow]


def assert_equal_to_reference(case: str) -> None:
    errors = run_cases(GOLDEN, [case])[case]
    assert errors
    assert max(errors.values()) < TOLERANCE, errors


@pytest.mark.parametrize("case", case_names(slow=False))
def test_networks_compute_what_the_reference_computes(case: str) -> None:
    assert_equal_to_reference(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", case_names(slow=True))
def test_full_size_networks_compute_what_the_reference_computes(case: str) -> None:
    assert_equal_to_reference(case)


def test_every_family_has_a_golden_case() -> None:
    families = {path.stem.rsplit("_", 1)[0] for path in GOLDEN.glob("*.npz")}
    assert families == set(CASES)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_public_state_dicts_load_strictly(name: str) -> None:
    public = json.loads((DATA / "state_dict_shapes.json").read_text())[name]
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in BUILDERS[name]().state_dict().items()}
    assert ours == public


def test_the_published_variant_is_told_from_its_keys() -> None:
    with torch.device("meta"):
        for config in (PAPER_LT, PAPER_NORMAL):
            assert config_of_public(Live3DEncoder(config.encoder).state_dict()) == config


def test_a_wrong_third_plane_is_far_from_the_reference() -> None:
    golden = Golden.load(GOLDEN / "plane_sampling_0.npz")
    planes = torch.from_numpy(golden.normal("planes", (2, 3, 32, 64, 64))).flatten(1, 2)
    points = torch.from_numpy(golden.uniform("xyz", (2, 500, 3), -0.62, 0.62))
    right = sample_planes(planes, points, RayOptions())
    wrong = sample_planes(planes, points, RayOptions(proper_axes=True))
    assert float((right - wrong).square().mean().sqrt() / right.square().mean().sqrt()) > 0.1


def test_fill_is_a_function_of_seed_and_key() -> None:
    shapes = {"a.weight": (2, 3), "b.bias": (4,), "x.resample_filter": (4, 4)}
    first, second = weights(shapes, 1), weights(shapes, 2)
    assert sorted(first) == ["a.weight", "b.bias"]
    assert np.array_equal(first["a.weight"], weights(shapes, 1)["a.weight"])
    assert not np.array_equal(first["a.weight"], second["a.weight"])


def test_an_empty_folder_or_an_unknown_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="no golden files"):
        run_cases(tmp_path)
    with pytest.raises(ParityError, match="no golden file"):
        run_cases(GOLDEN, ["camera_99"])


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
