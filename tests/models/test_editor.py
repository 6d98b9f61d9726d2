"""The editor makes the pictures of diffusers' plain call, with less work."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from data_catalog.config.errors import UserError
from data_catalog.config.settings import EditSettings
from models import camera, procedural
from models.editing.editor import SCHEDULERS, Editor, Scales
from models.editing.unet_graph import fits_graph
from models.libraries import diffusers
from models.zoo import zoo
from tasks.edit import check_scheduler
from tests.worlds.tiny import noise_picture, tiny_clip, tiny_editor

OLD_NUMPY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own
PROMPTS = ["turn her into a bronze statue", "make the hair red", "turn her into a bronze statue"]
SEEDS = [5, 6, 2**62]


@pytest.fixture(scope="module")
def embedded() -> Editor:
    return zoo.load("editor", "embedded")


@pytest.fixture
def tiny() -> Editor:
    return tiny_editor(tiny_clip())


def heads(count: int) -> np.ndarray:
    """(count, 64, 64, 3) uint8."""
    label = camera.orbit_label(0.1, 0.0)[0]
    pictures = [procedural.render(procedural.portrait(i), label, 64).rgb.numpy() for i in range(count)]
    return (np.stack(pictures) * 255).astype(np.uint8)


def plainly(editor: Editor, portraits: np.ndarray, steps: int, scales: Scales) -> Tensor:
    """Return the pictures that diffusers' own call makes of a batch."""
    pictures: Tensor = editor.pipeline(
        prompt=PROMPTS,
        image=torch.from_numpy(portraits).permute(0, 3, 1, 2).float() / 255,
        num_inference_steps=steps,
        guidance_scale=scales.text,
        image_guidance_scale=scales.image,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
    ).images
    return pictures


def calls(module: torch.nn.Module, read: Callable[[tuple[Any, ...]], Any] = lambda inputs: None) -> list[Any]:
    """Grows by one entry each time the module is called."""
    seen: list[Any] = []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(read(inputs)))
    return seen


def rows(editor: Editor) -> list[int]:
    return calls(editor.unet, lambda inputs: len(inputs[0]))


@pytest.mark.parametrize("scales", [Scales(2.0, 1.2), Scales(7.5, 1.5), Scales(1.0, 1.5)])
def test_the_embedded_editor_makes_the_pictures_of_the_plain_call(embedded: Editor, scales: Scales) -> None:
    portraits = heads(3)
    expected = plainly(embedded, portraits, 6, scales)
    found = embedded.sample(portraits, PROMPTS, SEEDS, 6, scales)
    assert float((found - expected).abs().max()) < 1e-4
    alone = [embedded.sample(portraits[i : i + 1], PROMPTS[i : i + 1], SEEDS[i : i + 1], 6, scales) for i in range(3)]
    assert float((torch.cat(alone) - expected).abs().max()) < 1e-4


@OLD_NUMPY
@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
def test_any_scheduler_makes_the_pictures_of_the_plain_call(tiny: Editor, name: str) -> None:
    # The published InstructPix2Pix comes with the first, which adds noise at each step.
    tiny.pipeline.scheduler = getattr(diffusers, name)()
    portraits, scales = np.stack([noise_picture(i) for i in range(3)]), Scales(3.0, 1.4)
    expected = plainly(tiny, portraits, 5, scales)
    assert float((tiny.sample(portraits, PROMPTS, SEEDS, 5, scales) - expected).abs().max()) < 1e-4
    assert float(expected.std()) > 0.01


def test_the_schedulers_of_the_settings_are_those_of_the_editor() -> None:
    names, _ = get_args(EditSettings.model_fields["scheduler"].annotation)
    assert set(get_args(names)) == set(SCHEDULERS)


@OLD_NUMPY
@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp"])
def test_another_scheduler_makes_what_diffusers_makes_with_it_also_by_the_graph(embedded: Editor, name: str) -> None:
    portraits, scales, own = heads(3), Scales(2.0, 1.2), embedded.pipeline.scheduler
    found = embedded.sample(portraits, PROMPTS, SEEDS, 4, scales, scheduler=name)
    try:
        embedded.pipeline.scheduler = getattr(diffusers, SCHEDULERS[name][0]).from_config(own.config)
        expected = plainly(embedded, portraits, 4, scales)
    finally:
        embedded.pipeline.scheduler = own
    assert float((found - expected).abs().max()) < 1e-4


@OLD_NUMPY
def test_a_scheduler_changes_the_pictures_and_none_is_the_checkpoints_own(tiny: Editor) -> None:
    given = noise_picture(0)[None], PROMPTS[:1], SEEDS[:1], 5, Scales(3.0, 1.4)
    own = tiny.sample(*given)  # its pipeline ships DDIM
    assert torch.equal(tiny.sample(*given, scheduler="ddim"), own)
    others = [tiny.sample(*given, scheduler=name) for name in ("euler", "euler_a", "dpmpp")]
    for i, picture in enumerate(others):
        assert all(float((picture - other).abs().mean()) > 1e-3 for other in [own, *others[:i]])
    assert torch.equal(tiny.sample(*given), own)  # the one that was asked for is not kept


def test_a_scheduler_that_cannot_take_the_networks_prediction_is_refused(embedded: Editor) -> None:
    assert embedded.pipeline.scheduler.config.prediction_type == "sample"
    with pytest.raises(ValueError, match="cannot sample with a network that predicts the picture"):
        embedded.scheduler("euler_a")
    with pytest.raises(UserError, match=r"edit\.scheduler=euler_a does not fit the editor"):
        check_scheduler(embedded, EditSettings(scheduler="euler_a"))


@pytest.mark.parametrize(
    ("scales", "branches"),
    [
        (Scales(3.0, 1.4), 3),
        (Scales(3.0, 1.0), 2),
        (Scales(1.4, 1.4), 2),
        (Scales(1.0, 1.4), 1),
        (Scales(1.0, 1.0), 1),
    ],
)
def test_branches_that_cannot_change_the_picture_are_not_computed(tiny: Editor, scales: Scales, branches: int) -> None:
    portraits = np.stack([noise_picture(i) for i in range(3)])
    expected = plainly(tiny, portraits, 4, scales)
    computed = rows(tiny)
    assert float((tiny.sample(portraits, PROMPTS, SEEDS, 4, scales) - expected).abs().max()) < 1e-4
    assert computed == [3 * branches] * 4


def test_outside_its_interval_guidance_costs_nothing(tiny: Editor) -> None:
    computed = rows(tiny)
    tiny.sample(noise_picture(0)[None], PROMPTS[:1], SEEDS[:1], 10, Scales(3.0, 1.4, (0.2, 0.5)))
    assert computed == [1, 1, 3, 3, 3, 1, 1, 1, 1, 1]
    whole, never = (
        tiny.sample(noise_picture(0)[None], PROMPTS[:1], SEEDS[:1], 4, Scales(scale, 1.4, interval))
        for scale, interval in ((1.0, (0.0, 1.0)), (3.0, (0.5, 0.5)))
    )
    assert torch.equal(whole, never)


def test_a_prompt_and_a_portrait_are_encoded_once(tiny: Editor) -> None:
    portraits = np.stack([noise_picture(i % 2) for i in range(4)])
    texts, pictures = calls(tiny.pipeline.text_encoder), calls(tiny.pipeline.vae.encoder)
    first = tiny.edit(portraits, ["a", "b", "b", "a"], [1, 2, 3, 4], 2, 3.0, 1.4, keep_portraits=True)
    again = tiny.edit(portraits, ["a", "b", "b", "a"], [1, 2, 3, 4], 2, 3.0, 1.4, keep_portraits=True)
    assert (len(texts), len(pictures)) == (3, 2)  # "a", "b" and the empty one
    assert np.array_equal(first, again)
    tiny.edit(portraits, ["a", "b", "b", "a"], [1, 2, 3, 4], 2, 3.0, 1.4)
    assert len(pictures) == 2 + 4  # not remembered unless asked to


def test_what_is_remembered_is_bounded(tiny: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.editing.editor.KEPT", 8)
    tokens = calls(tiny.pipeline.text_encoder)
    for number in range(12):
        tiny._encode_prompt(f"{number}")
        tiny._encode_prompt("often")
    assert len(tiny._prompts) == 8
    assert len(tokens) == 13
    tiny._encode_prompt("0")
    assert len(tokens) == 14  # the oldest was forgotten


def test_an_edit_has_the_same_bits_in_any_batch(embedded: Editor) -> None:
    portraits = heads(3)
    together = embedded.edit(portraits, PROMPTS, SEEDS, 3, 2.0, 1.2)
    alone = embedded.edit(portraits[1:2], PROMPTS[1:2], SEEDS[1:2], 3, 2.0, 1.2, keep_portraits=True)
    assert np.array_equal(together[1], alone[0])
    assert not np.array_equal(together[0], together[2])


@OLD_NUMPY
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerAncestralDiscreteScheduler"])
def test_nothing_is_read_from_the_device_between_the_steps(tiny: Editor, scheduler: str) -> None:
    tiny.pipeline.scheduler = getattr(diffusers, scheduler)()
    tiny.to("meta")  # a device without values: whoever reads one there gets an error
    tiny.pipeline.scheduler.set_timesteps(3)
    image, tokens = torch.zeros(2, 4, 16, 16, device="meta"), torch.zeros(2, 16, 32, device="meta")
    tiny._prompts[""] = tokens[:1]
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS[:2]]
    sampled = tiny._sample_latents(image, image, tokens, Scales(3.0, 1.4), generators, tiny.pipeline.scheduler)
    assert (sampled.device.type, sampled.shape) == ("meta", image.shape)


def test_the_graph_is_taken_where_it_can_be_had(embedded: Editor, tiny: Editor) -> None:
    assert fits_graph(embedded.unet)
    computed = rows(embedded)
    embedded.edit(heads(1), PROMPTS[:1], SEEDS[:1], 2, 2.0, 1.2)
    assert not computed  # the network itself was not called
    assert not fits_graph(tiny.unet.to(torch.bfloat16))


def test_a_compiled_network_makes_the_same_picture(tiny: Editor) -> None:
    given = noise_picture(0)[None], PROMPTS[:1], SEEDS[:1], 1, Scales(1.0, 1.0)
    before = tiny.sample(*given)
    traced: list[int] = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        traced.append(len(graph.graph.nodes))
        return graph.forward

    tiny.compile(backend=count)
    tiny.compile(backend=count)  # as each partition of the stage does: once is enough
    assert torch.allclose(tiny.sample(*given), before, atol=1e-5)
    assert traced
