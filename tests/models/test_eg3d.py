"""EG3D's generator: one class for both worlds, patches that are parts of the picture, the public file's keys."""

import json
from pathlib import Path

import pytest
import torch

from models.camera import orbit_label
from models.checkpoints import WeightsError
from models.three_d import eg3d, stylegan
from models.three_d.eg3d import EMBEDDED, PAPER, Generator, GeneratorConfig, LatentEncoder, Seen
from models.zoo import public

PUBLIC = Path(__file__).parents[1] / "data" / "state_dict_shapes.json"


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(EMBEDDED).eval().requires_grad_(False)


def test_the_configuration_survives_json() -> None:
    for config in (PAPER, EMBEDDED):
        assert GeneratorConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_paper_generator_has_the_keys_of_the_public_file() -> None:
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in Generator(PAPER).state_dict().items()}
    assert ours == json.loads(PUBLIC.read_text())["eg3d_G"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_public_file_becomes_the_generator_that_was_saved(
    generator: Generator, tmp_path: Path, wrapped: bool
) -> None:
    state = generator.state_dict()
    torch.save({"G_ema": state} if wrapped else state, tmp_path / "eg3d.pth")
    loaded = public.load_eg3d(tmp_path / "eg3d.pth", EMBEDDED)
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.save({key: value for key, value in state.items() if "mapping" not in key}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="EG3D's generator"):
        public.load_eg3d(tmp_path / "part.pth", EMBEDDED)


def test_truncation_pulls_the_first_styles_to_the_mean(generator: Generator) -> None:
    mapping = generator.backbone.mapping
    mapping.w_avg.copy_(torch.randn(EMBEDDED.w_size, generator=torch.Generator().manual_seed(1)))
    noise, label = torch.randn(2, EMBEDDED.noise_size), orbit_label(0.0, 0.0).expand(2, -1)
    whole, pulled = mapping(noise, label), mapping(noise, label, psi=0.0, cutoff=3)
    assert torch.allclose(pulled[:, :3], mapping.w_avg.expand(2, 3, -1))
    assert torch.equal(pulled[:, 3:], whole[:, 3:])


def test_a_style_for_each_sample_is_the_style_for_one(generator: Generator) -> None:
    block = generator.backbone.synthesis.get_submodule("b8")
    layer = block.get_submodule("conv0")
    x, w = torch.randn(2, layer.weight.shape[1], 4, 4), torch.randn(2, EMBEDDED.w_size)
    with torch.no_grad():
        together = layer(x, w, "none")
        alone = torch.cat([layer(x[i : i + 1], w[i : i + 1], "none") for i in range(2)])
        plain = stylegan.modulated_conv(x, layer.weight, layer.affine(w), demodulate=False)
        single = stylegan.modulated_conv(x[1:], layer.weight, layer.affine(w[1:]), demodulate=False)
    assert torch.allclose(together, alone, atol=1e-5 * float(alone.abs().max()))
    assert torch.allclose(plain[1:], single, atol=1e-5 * float(single.abs().max()))


def test_a_patch_has_the_rays_of_the_picture(generator: Generator) -> None:
    with torch.no_grad():
        ws = torch.randn(1, EMBEDDED.styles, EMBEDDED.w_size)
        triplane = generator.planes(ws)
        whole = generator.render(triplane, ws, orbit_label(0.2, 0.1))
        row, column = 5, 9
        inner = torch.arange(8)
        pixels = ((row + inner)[:, None] * 32 + column + inner).flatten()
        patch = generator.render(triplane, ws, orbit_label(0.2, 0.1), pixels=pixels)
        assert whole.image.shape == (1, 3, 64, 64)
        assert patch.image.shape == (1, 3, 16, 16)
        part = whole.image_raw[..., row : row + 8, column : column + 8]
        assert torch.allclose(patch.image_raw, part, atol=1e-5)
        seen = Seen(generator, ws).render(triplane.expand(2, -1, -1, -1), orbit_label(0.2, 0.1).expand(2, -1))
        assert torch.allclose(seen.image[1], whole.image[0], atol=1e-5)


def test_the_encoder_counts_from_the_mean_latent() -> None:
    torch.manual_seed(0)
    encoder = LatentEncoder(EMBEDDED)
    mean = torch.randn(EMBEDDED.w_size)
    with torch.no_grad():
        first, second = encoder(torch.zeros(1, 3, 64, 64), mean), encoder(torch.zeros(1, 3, 64, 64), 0 * mean)
    assert first.shape == (1, EMBEDDED.styles, EMBEDDED.w_size)
    assert torch.allclose(first - second, mean.expand_as(first), atol=1e-5)


def test_a_second_moment_is_one() -> None:
    scaled = eg3d.normalise_second_moment(torch.tensor([[3.0, 4.0]]))
    assert scaled[0].tolist() == pytest.approx([3 / 12.5**0.5, 4 / 12.5**0.5])
