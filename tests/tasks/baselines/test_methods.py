"""Each method of Table 1 on one head: its loss falls, and gradients reach its own parameters and no others."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_catalog.config.errors import UserError
from data_catalog.config.settings import BaselinesSettings, EditSettings, Settings
from models import procedural
from models.camera import mirror_label, orbit_angles, orbit_label
from models.faces.recognition import Recogniser
from models.judges.arcface import ArcFace
from models.judges.captioner import Retrieval
from models.pixels import to_levels
from models.three_d.eg3d import Seen
from models.zoo import zoo
from tasks.baselines import inversion, ip2p_live3d, live3d_styleclip, ours, protocol, pti_styleclip, spi_nada, styleclip
from tasks.baselines.protocol import Diverged, Edited, Networks, Portrait, Prompt, optimise
from tasks.student.user_portrait import Portrait as AlignedPortrait
from tests.worlds.pupil import network, student_with_encoders

LABEL = orbit_label(0.25, 0.05)
Loss = Callable[[int], Tensor]
SETTINGS = Settings(
    edit=EditSettings(steps=2, guidance_scale=1.1, image_guidance_scale=1.0),
    baselines=BaselinesSettings(
        invert_steps=10, spi_invert_steps=4, pti_steps=8, spi_steps=4, styleclip_steps=10, nada_steps=6
    ),
)
TEXT = Prompt(text="turn him into a zombie")


@pytest.fixture(scope="module")
def networks() -> Networks:
    found = {name: zoo.load(name, "embedded") for name in ("teacher", "clip", "lpips", "editor", "mae")}
    found["identity"] = zoo.load_recogniser("embedded")
    captioner = Retrieval(found["clip"], ["a photo of a zombie", "a photo of a bronze statue"])
    return Networks(**found, student=network(), inverter=zoo.load("generator", "embedded"), captioner=captioner)


@pytest.fixture
def portrait() -> Portrait:
    rgb = procedural.render(procedural.portrait(11), LABEL[0], 64).rgb
    return Portrait(to_levels(rgb), LABEL[0].numpy())


@pytest.fixture(scope="module")
def zombie() -> Prompt:
    return Prompt(picture=to_levels(procedural.render(procedural.portrait(12), LABEL[0], 64, "zombie").rgb))


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """The losses of each optimisation, by its name."""
    seen: dict[str, list[float]] = {}

    def remembering(parameters: list[Tensor], loss: Loss, steps: int, rate: float, what: str, **given: Any) -> Any:
        seen[what] = optimise(parameters, loss, steps, rate, what, **given)
        return seen[what]

    for module in (inversion, styleclip, spi_nada):
        monkeypatch.setattr(module, "optimise", remembering)
    return seen


def every_network(networks: Networks) -> dict[str, torch.nn.Module]:
    assert networks.inverter is not None
    parts = {"generator": networks.inverter[0], "encoder": networks.inverter[1], "identity": networks.identity.network}
    named = {name: getattr(networks, name) for name in ("teacher", "clip", "lpips", "student")}
    return {name: part for name, part in {**named, **parts}.items() if part is not None}


def state(networks: Networks) -> dict[str, Tensor]:
    return {f"{n}.{k}": v.clone() for n, part in every_network(networks).items() for k, v in part.state_dict().items()}


def psnr(edited: Edited, portrait: Portrait) -> float:
    with torch.no_grad():
        image = edited.model.render(edited.triplane, portrait.label).image.clamp(-1, 1)
    return -10 * math.log10(float(((image - portrait.image) / 2).square().mean()))


EDITS = {
    "pti": pti_styleclip.edit,
    "live3d": live3d_styleclip.edit,
    "spi": spi_nada.edit,
    "ip2p": ip2p_live3d.edit,
    "ours": ours.edit,
}


@pytest.mark.parametrize("kind", ["text", "picture"])
@pytest.mark.parametrize("name", EDITS)
def test_every_method_edits_by_words_and_by_a_picture_and_leaves_the_shared_networks_alone(
    name: str, kind: str, networks: Networks, portrait: Portrait, zombie: Prompt, values: dict[str, list[float]]
) -> None:
    before = state(networks)
    edited = EDITS[name](networks, portrait, TEXT if kind == "text" else zombie, SETTINGS)
    after = state(networks)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    for part in every_network(networks).values():
        assert all(parameter.grad is None for parameter in part.parameters())
    with torch.no_grad():
        seen = edited.model.render(edited.triplane.expand(2, -1, -1, -1), torch.cat([LABEL, orbit_label(-0.3, 0.0)]))
    assert seen.image.shape == (2, 3, 64, 64)
    assert torch.isfinite(seen.image).all()
    for losses in values.values():
        assert min(losses[-2:]) < losses[0]
    if name in ("pti", "live3d", "spi"):
        assert len(values) == {"pti": 3, "live3d": 1, "spi": 3}[name]
        assert edited.unedited is not None
        plain = edited.unedited.model.render(edited.unedited.triplane, portrait.label).image
        assert float((seen.image[:1] - plain).abs().mean()) > 1e-3  # something was edited


@pytest.mark.parametrize("name", ["pti", "spi"])
def test_the_order_of_prompts_changes_no_byte(
    name: str, networks: Networks, portrait: Portrait, zombie: Prompt
) -> None:
    own = BaselinesSettings(
        invert_steps=2, spi_invert_steps=2, pti_steps=2, spi_steps=3, styleclip_steps=3, nada_steps=3
    )
    settings, again = Settings(baselines=own), replace(portrait, _known={})
    words, picture = (EDITS[name](networks, portrait, prompt, settings) for prompt in (TEXT, zombie))
    picture_first, words_last = (EDITS[name](networks, again, prompt, settings) for prompt in (zombie, TEXT))
    for one, other in ((words, words_last), (picture, picture_first)):
        assert torch.equal(one.triplane, other.triplane)
        assert torch.equal(*(each.model.render(each.triplane, portrait.label).image for each in (one, other)))
    assert not torch.equal(words.triplane, picture.triplane)


@pytest.mark.parametrize("kind", ["text", "picture"])
def test_a_student_with_encoders_of_its_own_reads_the_prompt_by_them(
    kind: str, networks: Networks, portrait: Portrait, zombie: Prompt
) -> None:
    prompt, student = TEXT if kind == "text" else zombie, student_with_encoders()
    edited = ours.edit(replace(networks, student=student.network, mae=None), portrait, prompt, SETTINGS)
    asked = student.read_prompt(prompt.text, prompt.picture)
    aligned = AlignedPortrait(portrait.picture, portrait.camera, "given", False)
    assert torch.equal(edited.triplane, student.edit_aligned(aligned, asked).triplane)
    frozen = ours.edit(networks, portrait, prompt, SETTINGS)
    assert not torch.allclose(edited.triplane, frozen.triplane, atol=1e-3)


def test_pivotal_tuning_leaves_the_pivot_nearer_to_the_portrait_than_the_encoder(
    networks: Networks, portrait: Portrait
) -> None:
    assert networks.inverter is not None
    start, _ = inversion.start(networks.inverter, portrait)
    own = BaselinesSettings(pti_steps=30)
    pivot = inversion.invert(networks.inverter, networks.lpips, portrait, own, 40)
    tuned = inversion.tune(networks.lpips, portrait, own, pivot)
    encoded, found, final = (psnr(each.edited(), portrait) for each in (start, pivot, tuned))
    assert encoded < found < final
    assert torch.equal(tuned.ws, pivot.ws)
    assert tuned.generator is not pivot.generator


def test_without_an_encoder_the_latent_starts_at_the_mean_and_is_one_w_for_pti_and_one_a_layer_for_spi(
    networks: Networks, portrait: Portrait
) -> None:
    assert networks.inverter is not None
    bare = (networks.inverter[0], None)
    start, deviation = inversion.start(bare, portrait)
    mapping, noise = networks.inverter[0].backbone.mapping, torch.randn(2000, networks.inverter[0].config.noise_size)
    latents = mapping(noise, portrait.label.expand(2000, -1))[:, 0]
    own = float((latents - latents.mean(dim=0)).norm(dim=1).square().mean().sqrt())
    assert deviation == pytest.approx(own, rel=0.05)
    assert float((start.ws[0, 3] - latents.mean(dim=0)).norm()) < 0.1 * own
    one, each = (
        inversion.invert(bare, networks.lpips, portrait, SETTINGS.baselines, 5, mirrored) for mirrored in (False, True)
    )
    assert torch.equal(one.ws[:, :1].expand_as(one.ws), one.ws)
    assert not torch.equal(one.ws, start.ws)
    assert not torch.allclose(each.ws[:, :1].expand_as(each.ws), each.ws, atol=1e-3)
    again = inversion.invert(bare, networks.lpips, portrait, SETTINGS.baselines, 5)
    assert torch.equal(one.ws, again.ws)  # the search's noise is the portrait's own


def test_nada_moves_the_generators_picture_along_clips_direction(
    networks: Networks, portrait: Portrait, zombie: Prompt
) -> None:
    for prompt in (TEXT, zombie):
        edited = spi_nada.edit(networks, portrait, prompt, SETTINGS)
        assert edited.unedited is not None
        assert isinstance(edited.unedited.model, Seen)
        found = inversion.Inverted(*edited.unedited.model)
        wanted = spi_nada.direction(networks, found, portrait, prompt)
        with torch.no_grad():
            ends = [each.model.render(each.triplane, portrait.label).image for each in (edited.unedited, edited)]
            plain, moved = (styleclip.look_features(networks.clip, image) for image in ends)
        assert float(((moved - plain) * wanted).sum()) > 0.01


def test_nada_learns_at_each_step_and_not_only_at_the_first(
    networks: Networks, portrait: Portrait, values: dict[str, list[float]]
) -> None:
    own = BaselinesSettings(spi_invert_steps=0, spi_steps=0, nada_steps=12)
    edited = spi_nada.edit(networks, portrait, Prompt(text="make her a bronze statue"), Settings(baselines=own))
    assert values["StyleGAN-NADA"][-1] < 0.3
    with torch.no_grad():
        image = edited.model.render(edited.triplane, portrait.label).image
        alike = styleclip.look_features(networks.clip, image) @ networks.clip.embed_texts(["a bronze statue"]).T
    assert float(alike) > 0.7


def test_a_picture_asks_nada_for_its_difference_from_the_generators_heads_and_not_from_the_portrait(
    networks: Networks, portrait: Portrait, zombie: Prompt
) -> None:
    assert networks.inverter is not None
    found, _ = inversion.start(networks.inverter, portrait)
    another = replace(found, ws=found.ws + 0.5)
    wanted, same = (spi_nada.direction(networks, each, portrait, zombie) for each in (found, another))
    assert torch.equal(wanted, same)
    assert float(wanted.norm()) == pytest.approx(1.0)


def test_nada_trains_the_synthesis_and_neither_mapping_nor_image_layers(networks: Networks, portrait: Portrait) -> None:
    edited = spi_nada.edit(networks, portrait, TEXT, SETTINGS)
    assert edited.unedited is not None
    assert isinstance(edited.model, Seen)
    assert isinstance(edited.unedited.model, Seen)
    before, after = (each.generator.state_dict() for each in (edited.unedited.model, edited.model))
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed
    assert all(key.startswith("backbone.synthesis.") and ".torgb." not in key for key in changed)


def test_nada_sees_the_portrait_and_other_heads_at_each_step(networks: Networks, portrait: Portrait) -> None:
    assert networks.inverter is not None
    found, _ = inversion.start(networks.inverter, portrait)
    (ws, cameras), again, later = (spi_nada.draw_heads(found, portrait, step, 3) for step in (2, 2, 4))
    assert (ws.shape, cameras.shape) == ((3, *found.ws.shape[1:]), (3, 25))
    assert torch.equal(ws[:1], found.ws)
    assert torch.equal(cameras[:1], portrait.label)
    assert torch.equal(ws, again[0])
    assert not torch.equal(ws[1], ws[2])
    assert not torch.equal(ws[1], later[0][1])
    assert len(spi_nada.draw_heads(found, portrait, 2, 1)[0]) == 1


def test_tuning_leaves_the_mapping_as_it_is(networks: Networks, portrait: Portrait) -> None:
    assert networks.inverter is not None
    pivot, _ = inversion.start(networks.inverter, portrait)
    for tune in (inversion.tune, inversion.tune_symmetric):
        tuned = tune(networks.lpips, portrait, SETTINGS.baselines, pivot)
        before, after = pivot.generator.state_dict(), tuned.generator.state_dict()
        changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
        assert {key.split(".")[0] for key in changed} >= {"backbone", "decoder", "superresolution"}
        assert not any(".mapping." in key for key in changed)


def test_the_inversion_is_done_once_for_all_prompts_and_counts_each_time(
    networks: Networks, portrait: Portrait
) -> None:
    calls = []

    def slow() -> str:
        calls.append(1)
        sum(range(200_000))
        return "made"

    assert portrait.once("a", slow) == portrait.once("a", slow) == "made"
    assert len(calls) == 1
    assert portrait.spared > 0
    first, again, other = (
        inversion.invert_and_tune(networks, portrait, SETTINGS.baselines, symmetric)
        for symmetric in (False, False, True)
    )
    assert first is again
    assert first is not other


def test_the_mirrored_view_weighs_nothing_from_the_front_and_near_a_half_from_the_side(portrait: Portrait) -> None:
    weights = [inversion.mirror_weight(orbit_label(yaw, 0.1)) for yaw in (0.0, 0.19, 0.21, 0.5, -0.5, 1.5)]
    assert weights[:2] == [0.0, 0.0]
    assert weights[2:] == pytest.approx([0.3040, 0.4424, 0.4424, 0.5], abs=1e-4)


def test_pseudo_views_lie_around_the_portrait_its_mirror_image_and_the_front() -> None:
    cameras = torch.cat([inversion.pseudo_camera(LABEL, step, 7) for step in range(90)])
    yaw, pitch = orbit_angles(cameras)
    for first, centre in ((0, 0.25), (1, -0.25)):
        assert float((yaw[first::3] - centre).abs().max()) == pytest.approx(0.2, abs=0.03)
        assert float((pitch[first::3] - 0.05).abs().max()) == pytest.approx(0.1, abs=0.02)
    assert 0.6 < float(yaw[2::3].abs().max()) <= 0.7
    assert torch.equal(cameras[5:6], inversion.pseudo_camera(LABEL, 5, 7))


@pytest.mark.parametrize("tune", [inversion.tune, inversion.tune_symmetric])
def test_tuning_ends_where_the_picture_is_near_enough(
    tune: Callable[..., inversion.Inverted], networks: Networks, portrait: Portrait, values: dict[str, list[float]]
) -> None:
    assert networks.inverter is not None
    pivot, _ = inversion.start(networks.inverter, portrait)
    tuned = tune(networks.lpips, portrait, BaselinesSettings(pti_enough=1e3, spi_enough=1e3), pivot)
    assert [*values.values()] == [[]]
    before, after = pivot.generator.state_dict(), tuned.generator.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_the_identity_of_the_paper_reads_the_face_as_arcface_does(networks: Networks, portrait: Portrait) -> None:
    arcface = ArcFace().eval().requires_grad_(False)
    paper = replace(networks, identity=Recogniser(arcface, None, "paper"))
    seen: list[Tensor] = []
    arcface.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    own = BaselinesSettings(styleclip_steps=1, styleclip_identity=1.0)
    live3d_styleclip.edit(paper, portrait, TEXT, Settings(baselines=own))
    assert [faces.shape for faces in seen] == [(1, 3, 112, 112)] * 2
    assert torch.equal(
        seen[0], paper.identity.cut(portrait.image, paper.identity.find(portrait.picture[None], LABEL)[0])
    )


def test_a_picture_warps_onto_itself_and_hides_what_lies_behind(networks: Networks, portrait: Portrait) -> None:
    with torch.no_grad():
        triplane = networks.teacher.encode(portrait.image)
        own = networks.teacher.render(triplane, LABEL)
        side = networks.teacher.render(triplane, orbit_label(-0.5, 0.0))
        same, seen = inversion.warp(portrait.image, LABEL, own, own, LABEL)
        assert float(((same - portrait.image) * seen).abs().max()) < 0.01
        assert float(seen.mean()) > 0.9 * float((own.opacity > 0.5).float().mean())
        turned, visible = inversion.warp(portrait.image, LABEL, own, side, orbit_label(-0.5, 0.0))
        assert float(((turned - side.image * visible).abs()).sum() / (3 * visible.sum())) < 0.2
        assert not (turned * (1 - visible)).any()
        assert float(visible.mean()) < 0.9 * float((side.opacity > 0.5).float().mean())


def test_the_mirrored_view_of_a_turned_head_counts(
    networks: Networks, portrait: Portrait, values: dict[str, list[float]]
) -> None:
    assert networks.inverter is not None
    single = inversion.invert(networks.inverter, networks.lpips, portrait, SETTINGS.baselines, 1)
    alone = values["inversion"][0]
    inversion.invert(networks.inverter, networks.lpips, portrait, SETTINGS.baselines, 1, mirrored=True)
    assert values["inversion"][0] > alone
    assert torch.equal(mirror_label(mirror_label(LABEL)), LABEL)
    assert single.ws.shape[1] == single.generator.config.styles


def test_a_loss_that_is_no_number_is_said_with_its_optimisation() -> None:
    parameter = torch.ones(1, requires_grad=True)
    with pytest.raises(Diverged, match="inversion: the loss is not a number"):
        optimise([parameter], lambda step: parameter.sum() * (math.nan if step == 2 else 1.0), 5, 0.1, "inversion")
    with pytest.raises(Diverged, match="tuning: a value is not a number"):
        optimise([parameter], lambda step: (parameter - parameter.detach()).sqrt().sum(), 1, 0.1, "tuning")


def test_the_rate_rises_and_falls() -> None:
    parameter, places = torch.zeros(1, requires_grad=True), []

    def loss(step: int) -> Tensor:
        places.append(float(parameter.detach()))
        return -parameter.sum()

    optimise([parameter], loss, 100, 0.1, "rising", ramp=True)
    steps = np.diff(places)
    assert steps[0] < 0.03 < 0.09 < steps[30] < 0.11
    assert steps[-1] < 0.02


@pytest.mark.parametrize(
    "given",
    [{}, {"text": "  "}, {"text": 3}, {"picture": "zombie.png"}, {"picture": np.zeros((4, 4), np.uint8)},
     {"picture": np.zeros((4, 4, 4), np.uint8)}, {"picture": np.zeros((4, 4, 3))}],
)  # fmt: skip
def test_a_prompt_is_text_or_picture(given: dict[str, object]) -> None:
    with pytest.raises(UserError, match="neither text nor picture"):
        Prompt(**given)  # type: ignore[arg-type]
    with pytest.raises(UserError):
        protocol.Prompt(text="a clown", picture=np.zeros((4, 4, 3), np.uint8))


def test_the_captioner_names_the_style_of_a_picture(networks: Networks, zombie: Prompt) -> None:
    assert networks.captioner is not None
    assert zombie.picture is not None
    assert networks.captioner.caption(zombie.picture) == "a photo of a zombie"
