"""The training of the embedded networks, at the size of a test."""

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.faces.landmarks import LandmarkNet
from models.procedural.person import portrait
from models.three_d.eg3d import EMBEDDED
from models.zoo import zoo
from tasks.lab.pretraining import blocks, card, loop, recipes
from tasks.lab.pretraining.faces import load_faces
from tasks.lab.pretraining.faces import render_block as render_faces
from tasks.lab.pretraining.loop import Draw
from tasks.lab.pretraining.networks import autoencoder, editor, generator, identity, landmarks
from tasks.lab.pretraining.pictures import (
    LOOKS,
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    Pictures,
    load_pictures,
    render_block,
    share_out,
)
from tasks.training.optimizers import OptimizerName

TINY = dataclasses.replace(landmarks.RECIPE, steps=6)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three people to learn from, in two blocks, and two to measure with."""
    folder = tmp_path_factory.mktemp("pretrain")
    for first, count in ((TRAINING_SEEDS + 2, 1), (TRAINING_SEEDS, 2), (VALIDATION_SEEDS, 2)):
        render_block(folder / "pictures", first, count)
    return folder


@pytest.fixture(scope="module")
def pictures(work: Path) -> Pictures:
    return load_pictures(work / "pictures", TRAINING_SEEDS, 100)


def test_blocks_are_read_in_the_order_of_their_seeds_and_apart_from_the_held_out(
    work: Path, pictures: Pictures, tmp_path: Path
) -> None:
    assert pictures.crops.shape == (3, len(LOOKS), 64, 64, 3)
    alone = load_pictures(render_block(tmp_path, TRAINING_SEEDS + 2, 1).parent, TRAINING_SEEDS, 100)
    assert np.array_equal(pictures.crops[2:], alone.crops)
    held_out = load_pictures(work / "pictures", VALIDATION_SEEDS, 100)
    assert len(held_out.crops) == 2
    with pytest.raises(FileNotFoundError, match="no pictures from seed 7"):
        load_pictures(work / "pictures", 7, 1)


def test_a_block_is_rendered_once(tmp_path: Path) -> None:
    rendered: list[int] = []

    def person(seed: int) -> blocks.Arrays:
        rendered.append(seed)
        return {"seed": np.array(seed)}

    for _ in range(2):
        blocks.render_block(tmp_path, 5, 3, person)
    assert rendered == [5, 6, 7]
    assert blocks.load_blocks(tmp_path, 0, 100)["seed"].tolist() == [5, 6, 7]


def test_a_face_shows_one_identity_in_changing_scenes(tmp_path: Path) -> None:
    render_faces(tmp_path, 3, 1)
    faces = load_faces(tmp_path, 0, 10)
    assert faces.images.shape == (1, 12, 64, 64, 3)
    corners = faces.images[0, faces.looks[0] == 0, 0, 0]
    assert len(np.unique(corners, axis=0)) > 1  # the backdrop is drawn anew


def test_half_of_the_faces_are_met_softer_as_the_step_draws() -> None:
    board = torch.ones(48, 3, 64, 64)
    board[:, :, ::2] = -1.0  # lines of one pixel: the first thing that softness takes

    def disturbed(step: int) -> Tensor:
        return identity.disturb(board, Draw(np.random.default_rng(step), torch.Generator().manual_seed(step), 0.0))

    first = disturbed(1)
    assert first.shape == board.shape
    assert torch.equal(first, disturbed(1))
    assert not torch.equal(first, disturbed(2))
    contrast = first.std(dim=(1, 2, 3)).reshape(12, 4).mean(dim=1)  # by lot
    assert contrast.min() < 0.2 < 0.6 < contrast.max()


def test_faces_are_met_moved_a_little() -> None:
    dot = torch.zeros(48, 3, 64, 64)
    dot[:, :, 30:34, 30:34] = 1.0  # mirrored, it stays where it is
    seen = identity.disturb(dot, Draw(np.random.default_rng(0), torch.Generator().manual_seed(0), 0.0))[:, 0]
    place = torch.arange(64.0)
    rows = (seen.sum(dim=2) * place).sum(dim=1) / seen.sum(dim=(1, 2))
    away = (rows - 31.5).abs()
    assert 1.0 < away.max() < 32 * identity.MOVED + 0.5


class Killed(Exception):
    pass


def killed_at(step: int, recipe: loop.Recipe) -> loop.Recipe:
    """The recipe, whose process dies in the middle of a step."""

    def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        if round(draw.progress * TINY.steps) == step:
            raise Killed
        return landmarks.loss(network, pictures, draw)

    return dataclasses.replace(recipe, loss=loss)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_training_goes_on_to_the_same_weights(
    pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: OptimizerName
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 2)
    recipe = dataclasses.replace(TINY, optimizer=optimizer)
    whole = loop.train(recipe, pictures, tmp_path, tmp_path / "whole").state_dict()
    with pytest.raises(Killed):
        loop.train(killed_at(5, recipe), pictures, tmp_path, tmp_path / "killed")
    assert sorted(path.name for path in (tmp_path / "killed").glob("checkpoint-*"))[-1] == "checkpoint-00000004.pt"
    resumed = loop.train(recipe, pictures, tmp_path, tmp_path / "killed").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    torch.manual_seed(TINY.seed)
    fresh = TINY.build(tmp_path).state_dict()
    assert not all(torch.equal(value, fresh[name]) for name, value in whole.items() if name in fresh)


@pytest.mark.parametrize(
    ("asked", "capable", "kind"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_a_network_learns_in_bfloat16_where_the_processor_computes_in_it(
    asked: bool, capable: bool, kind: torch.dtype, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable})
    kinds = []

    def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        made = network(torch.ones(2, 3))
        kinds.append(made.dtype)
        return made.float().square().mean(), {}

    recipe = dataclasses.replace(
        landmarks.RECIPE, steps=1, build=lambda weights: nn.Linear(3, 2), loss=loss, bfloat16=asked
    )
    loop.train(recipe, pictures, tmp_path, tmp_path)
    assert kinds == [kind]


def test_a_network_leaves_weights_that_load_and_a_card(work: Path, tmp_path: Path) -> None:
    weights, mine = tmp_path / "weights", tmp_path / "work"
    recipes.train_network("landmarks", work, steps=3, weights=weights, work=mine)
    from safetensors.torch import load_file

    state = load_file(weights / "landmarks" / "landmarks.safetensors")
    LandmarkNet().load_state_dict(state)
    training = json.loads((mine / "landmarks" / "card.json").read_text())
    assert training["steps"] == 3
    text = card.write_card(mine, weights).read_text()
    assert "## landmarks" in text
    assert "3 steps of adamw, learning rate 0.003, seed 0." in text
    assert "Not examined yet" in text
    assert "## editor" not in text  # not trained here


def test_the_latents_stand_still_while_the_decoder_learns_alone(pictures: Pictures, tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []

    def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append({name: value.detach().clone() for name, value in network.named_parameters()})
        return autoencoder.loss(network, pictures, draw)

    loop.train(dataclasses.replace(autoencoder.RECIPE, steps=5, loss=loss), pictures, recipes.WEIGHTS, tmp_path)
    moved = [{name for name in new if not torch.equal(old[name], new[name])} for old, new in pairwise(seen)]
    assert any(name.startswith("vae.encoder.") for name in moved[0])
    assert moved[-1]
    assert not any(name.startswith(("vae.encoder.", "vae.quant_conv.")) for name in moved[-1])


def test_the_editor_pays_for_each_pixel_that_it_should_have_left_and_as_much_for_a_small_edit_as_for_a_large_one(
    pictures: Pictures,
) -> None:
    network = editor.EditorTraining(recipes.WEIGHTS)
    plain, truth = pictures.crops[:, 0], pictures.crops[:, LOOKS.index("elf-ears")]

    def error_of(images: np.ndarray) -> float:
        latents = network.vae.encode(loop.to_signed(images)).latent_dist.mode()
        return float(editor.picture_error(network, latents, truth, plain))

    with torch.no_grad():
        backdrop = truth.copy()
        backdrop[:, :6, :6] = 255 - backdrop[:, :6, :6]
        assert error_of(truth) < error_of(backdrop)
        assert error_of(truth) < error_of(plain)
    small, large = torch.zeros(1, 1, 10, 10), torch.zeros(1, 1, 10, 10)
    small[..., :2, :5], large[..., 5:, :] = 1.0, 1.0
    weights = [share_out(changed, smallest=0.01, weight=3.0) for changed in (small, large)]
    assert all(weight.mean() == pytest.approx(4.0) and weight.min() == 1.0 for weight in weights)


def test_the_editors_loss_counts_the_decoded_picture_in_the_later_part_of_the_training(pictures: Pictures) -> None:
    network = editor.EditorTraining(recipes.WEIGHTS)
    editor.prepare(network, pictures)

    @torch.no_grad()
    def at(progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        draw = Draw(np.random.default_rng(0), torch.Generator().manual_seed(0), progress)
        return editor.loss(network, pictures, draw)

    latents, early = at(0.0)
    both, late = at(0.99)
    assert "picture" not in early
    assert late["picture"] > 0
    assert float(both) == pytest.approx(float(latents + late["picture"]), rel=1e-4)


@pytest.fixture(scope="module")
def pair() -> generator.Pair:
    torch.manual_seed(0)
    network = generator.build(recipes.WEIGHTS)
    assert isinstance(network, generator.Pair)
    return network


def test_a_person_is_a_latent_of_51_numbers_and_no_other_person_has_it() -> None:
    noises = np.stack([generator.noise_of(portrait(seed)) for seed in range(64)])
    assert noises.shape == (64, EMBEDDED.noise_size)
    assert len(np.unique(noises, axis=0)) == 64
    continuous, marks = noises[:, :-9], noises[:, -9:]
    assert np.abs(continuous.mean(axis=0)).max() < 0.6
    assert 0.5 < continuous.std() < 1.5
    assert set(np.unique(marks)) == {-1.0, 1.0}
    assert (marks[:, :7].sum(axis=1) == 1 - 6).all()  # one style of hair each


def test_a_new_generator_upsamples_as_the_teacher_does_for_any_latent(pair: generator.Pair) -> None:
    features = torch.randn(2, 16, 32, 32)
    style = pair.teacher.renderer.const[0]
    with torch.no_grad():
        wanted = pair.teacher.renderer.superresolution(features[:, :3], features, style)
        for w in (torch.randn(1, EMBEDDED.w_size), torch.randn(1, EMBEDDED.w_size)):
            found = pair.generator.superresolution(features[:, :3], features, w)
            assert torch.allclose(found, wanted, atol=1e-4)


def test_both_parts_learn_in_both_phases_and_the_teacher_does_not(pictures: Pictures) -> None:
    torch.manual_seed(0)
    network = generator.build(recipes.WEIGHTS).train()
    generator.prepare(network, pictures)
    for progress, named in ((0.0, "triplane"), (0.99, "encoded")):
        draw = Draw(np.random.default_rng(0), torch.Generator().manual_seed(0), progress)
        loss, parts = generator.loss(network, pictures, draw)
        network.zero_grad()
        loss.backward()
        assert named in parts
        felt = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.any())}
        assert not any(name.startswith("teacher.") for name in felt)
        for part in ("generator.backbone.mapping.fc0", "generator.backbone.synthesis.b64", "encoder.net.0"):
            assert any(name.startswith(part) for name in felt), (named, part)
        assert ("generator.superresolution.block0.conv1.weight" in felt) == (named == "encoded")


def test_a_generator_learns_the_pictures_of_a_person(pictures: Pictures) -> None:
    torch.manual_seed(0)
    network = generator.build(recipes.WEIGHTS).train()
    generator.prepare(network, pictures)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 3e-3, betas=(0.9, 0.99))
    losses = []
    for _ in range(12):
        draw = Draw(np.random.default_rng(0), torch.Generator().manual_seed(0), 0.0)  # always the same people
        loss, _ = generator.loss(network, pictures, draw)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.75 * losses[0]


def test_the_encoders_latents_stay_where_they_were_when_the_mean_latent_is_taken_anew(
    pair: generator.Pair, pictures: Pictures
) -> None:
    generator.prepare(pair, pictures)
    images = loop.to_signed(pictures.crops[:, 0])
    mapping = pair.generator.backbone.mapping
    with torch.no_grad():
        mapping.w_avg.add_(1.0)
        before = pair.encode(images)
        generator.finish(pair, pictures)
        assert torch.allclose(pair.encode(images), before, atol=1e-4)
        people = [portrait(TRAINING_SEEDS + i) for i in range(generator.STANDARD_PEOPLE)]
        mean = generator.latents(pair.generator, people)[:, 0].mean(dim=0)
    assert torch.allclose(mapping.w_avg, mean, atol=1e-5)


def test_a_saved_generator_is_the_one_that_the_zoo_loads(pair: generator.Pair, tmp_path: Path) -> None:
    generator.save(pair, tmp_path)
    folder = tmp_path / "generator"
    files = [load_file(folder / f"{name}.safetensors") for name in ("generator", "encoder")]
    made, encoder = zoo._load_inverter(folder, *files, "cpu")
    assert made.config == EMBEDDED
    ws = torch.randn(1, EMBEDDED.styles, EMBEDDED.w_size)
    with torch.no_grad():
        assert torch.allclose(made.half().float().planes(ws), pair.generator.planes(ws), rtol=0.1, atol=0.5)
    assert encoder.styles == EMBEDDED.styles
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
