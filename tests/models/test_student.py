import dataclasses
import json

import pytest
import torch
from torch import Tensor

from models.camera import orbit_label
from models.judges.clip import TEXT_SIZES
from models.libraries import transformers
from models.three_d import live3d, mae, student
from models.three_d.live3d import Live3D, Live3DConfig
from models.three_d.student import Student, StudentConfig
from models.zoo.random_weights import TEXT_TOWER
from tasks.lab.pretraining.networks.mae import MaskedAutoencoder
from tests.worlds.tiny import tiny_clip


@pytest.fixture(scope="module")
def teacher() -> Live3D:
    torch.manual_seed(0)
    return Live3D(live3d.EMBEDDED).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def prompt(kind: str, batch: int = 2) -> Tensor:
    size = student.EMBEDDED.text_token_size if kind == "text" else student.EMBEDDED.image_token_size
    return torch.randn(batch, 5, size, generator=torch.Generator().manual_seed(2))


def test_a_new_student_reproduces_its_teacher(teacher: Live3D, images: Tensor) -> None:
    pupil = Student.from_teacher(teacher).eval()
    with torch.no_grad():
        expected = teacher.encode(images)
        for kind in ("text", "image"):
            assert torch.equal(pupil.encode(images, prompt(kind), kind), expected)  # type: ignore[arg-type]
        cameras = orbit_label(torch.tensor([0.2, -0.1]), 0.0)
        assert torch.equal(pupil.render(expected, cameras).image, teacher.render(expected, cameras).image)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_gradients_reach_exactly_the_prompt_and_triplane_parts(
    kind: student.PromptKind, teacher: Live3D, images: Tensor
) -> None:
    pupil = Student.from_teacher(teacher).train()
    torch.nn.init.normal_(pupil.encoder.Ref_encoder.proj_tail.weight)  # zero would hide what lies before it
    triplane = pupil.encode(images, prompt(kind), kind)
    pupil.render(triplane, orbit_label(torch.tensor([0.2, -0.1]), 0.0)).image.square().mean().backward()
    other = "image" if kind == "text" else "text"
    for name, parameter in pupil.named_parameters():
        learns = name.startswith(("encoder.Ref_encoder.", "encoder.Final_encoder."))
        reached = learns and f".project.{other}." not in name
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == reached, name


def own_encoders() -> StudentConfig:
    """The embedded sizes, with encoders of E_p's own."""
    return dataclasses.replace(student.EMBEDDED, mae=mae.EMBEDDED, text=tiny_clip().text_config(), text_token_size=32)


def own_prompt(kind: str) -> Tensor:
    """Two prompts as E_p's own encoders read them."""
    if kind == "text":
        return tiny_clip().prompt_ids(["make it red", "a clown"])
    pictures = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(3))
    return mae.normalise(pictures.to(torch.uint8), 64)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_gradients_reach_exactly_e_p_with_its_own_encoders_and_e_t(
    kind: student.PromptKind, teacher: Live3D, images: Tensor
) -> None:
    pupil = Student.from_teacher(teacher, own_encoders()).train()
    torch.nn.init.normal_(pupil.encoder.Ref_encoder.proj_tail.weight)
    tokens = pupil.read(own_prompt(kind), kind)
    triplane = pupil.encode(images, tokens, kind)
    pupil.render(triplane, orbit_label(torch.tensor([0.2, -0.1]), 0.0)).image.square().mean().backward()
    others = {"text": ("mae_encoder", "project.image"), "image": ("text_encoder", "project.text")}[kind]
    reached = {"text_encoder": False, "mae_encoder": False}
    for name, parameter in pupil.named_parameters():
        learns = name.startswith(("encoder.Ref_encoder.", "encoder.Final_encoder.")) and "pos_embed" not in name
        seen = learns and not name.startswith(tuple(f"encoder.Ref_encoder.{other}." for other in others))
        assert parameter.requires_grad == learns, name
        # A key's bias moves all weights of a softmax alike.
        if not name.endswith(("k_proj.bias", "attn.qkv.bias")):
            assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == seen, name
        for part in reached:
            reached[part] |= f".{part}." in name and parameter.grad is not None
    assert reached == {"text_encoder": kind == "text", "mae_encoder": kind == "image"}


def test_e_p_learns_as_many_weights_as_in_the_paper() -> None:
    clip = transformers.CLIPTextConfig(**TEXT_TOWER).to_dict()
    with torch.device("meta"):
        public = Student(student.PAPER).encoder.Ref_encoder
        frozen = Student(dataclasses.replace(student.PAPER, mae=None)).encoder.Ref_encoder
        whole = Student(dataclasses.replace(student.PAPER, text={name: clip[name] for name in TEXT_SIZES}))
    count = [
        sum(p.numel() for p in part.parameters() if p.requires_grad)
        for part in (public, frozen, whole.encoder.Ref_encoder)
    ]
    assert count == [89_471_328, 3_823_968, 89_471_328 + 123_060_480]
    assert whole.config.own_encoders == ("text", "image")


def test_a_prompt_changes_the_triplane_once_the_projection_has_weights(teacher: Live3D, images: Tensor) -> None:
    pupil = Student.from_teacher(teacher).eval()
    torch.nn.init.normal_(pupil.encoder.Ref_encoder.proj_tail.weight, std=0.1)
    with torch.no_grad():
        first = pupil.encode(images, prompt("text"), "text")
        second = pupil.encode(images, prompt("text").flip(0), "text")
    assert not torch.allclose(first, second)


def test_frozen_parts_stay_in_evaluation_mode(teacher: Live3D) -> None:
    pupil = Student.from_teacher(teacher).train()
    assert pupil.encoder.Final_encoder.training
    assert not pupil.encoder.decoder.training
    assert not pupil.renderer.training


def test_configs_survive_json() -> None:
    for config in (student.EMBEDDED, student.PAPER, own_encoders()):
        assert StudentConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    for teacher_config in (live3d.EMBEDDED, live3d.PAPER_NORMAL):
        again = Live3DConfig.from_dict(json.loads(json.dumps(teacher_config.to_dict())))
        assert again == teacher_config


def test_a_tiny_masked_autoencoder_overfits_one_batch() -> None:
    torch.manual_seed(0)
    config = mae.MaeConfig(image_size=16, patch_size=4, width=32, depth=1, heads=2, decoder_width=32, decoder_depth=1)
    model = MaskedAutoencoder(config)
    generator = torch.Generator().manual_seed(0)
    stripes = (torch.arange(16) // 2 % 2 * 255).to(torch.uint8).expand(2, 16, 16)
    images = mae.normalise(stripes[..., None].expand(2, 16, 16, 3), 16)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(60):
        loss = model(images, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_mae_tokens_of_a_picture_do_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    model = mae.Mae(mae.MaeEncoder(mae.EMBEDDED))
    images = torch.randint(0, 256, (3, 64, 64, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    together = model.tokens(images)
    assert together.shape == (3, 65, 96)
    assert torch.allclose(model.tokens(images[1:2]), together[1:2], atol=1e-5)
