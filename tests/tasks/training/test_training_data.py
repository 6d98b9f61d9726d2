"""Data of a training step: draws, prompts, pictures, triplanes, and their caches."""

import dataclasses
from pathlib import Path

import pytest
import torch

from data_catalog.config.errors import UserError
from data_catalog.config.settings import DistillSettings, TeachSettings
from models.pixels import signed
from tasks.distill import Networks
from tasks.training.batches import BatchMaker
from tasks.training.data import Memory, Sampler, check_no_leakage, read_fields, read_samples
from tests.worlds import taught


def test_every_sample_is_drawn_once_an_epoch_and_no_prompt_is_the_samples_own(root: Path, dataset: Path) -> None:
    samples = [sample for sample in read_samples(dataset, root) if sample.split == "train"]
    sampler = Sampler(samples, 3, 0.5, 1, seed=7)
    draws = [sampler.draw(step, 2) for step in range(8)]  # 24 places: three epochs of eight
    order = [index for draw in draws for index in draw.samples]
    assert all(sorted(order[i : i + 8]) == list(range(8)) for i in (0, 8, 16))
    assert order[:8] != order[8:16]
    pairs = [(i, r) for draw in draws for i, r in zip(draw.samples, draw.references, strict=True)]
    images = [(i, r) for i, r in pairs if r is not None]
    assert 0 < len(images) < len(pairs)
    for index, reference in images:
        assert samples[index].style == samples[reference].style
        assert samples[index].portrait_id != samples[reference].portrait_id
    assert Sampler(samples, 3, 0.5, 1, seed=7).draw(5, 2) == draws[5]
    assert len({draw.noise_seed for draw in draws}) == len(draws)


def test_every_kept_pseudo_label_of_a_style_serves_as_a_prompt_of_other_people(root: Path, dataset: Path) -> None:
    samples = [sample for sample in read_samples(dataset, root) if sample.split == "train"]
    first, second = [place for place, sample in enumerate(samples) if sample.style == samples[0].style][:2]
    samples[second] = dataclasses.replace(samples[second], person=samples[first].person)  # a mirrored copy
    sampler = Sampler(samples, 8, 1.0, 1, seed=3)
    draws = [sampler.draw(step, 2) for step in range(200)]
    drawn = {pair for draw in draws for pair in zip(draw.samples, draw.references, strict=True)}
    assert drawn == {
        (i, r)
        for i, own in enumerate(samples)
        for r, prompt in enumerate(samples)
        if own.style == prompt.style and own.person != prompt.person
    }


def test_l2d_compares_with_the_teachers_view_or_with_the_pseudo_label(
    root: Path, dataset: Path, networks: Networks
) -> None:
    samples, prompts, student = taught.begin_lesson(dataset, root, networks)
    draw = Sampler(samples, 2, 0.0, 1, seed=0).draw(0, 2)
    seen, edited = (
        BatchMaker(student, networks.teacher, prompts, DistillSettings(l2d_target=target)).make(samples, draw).targets
        for target in ("teacher", "pseudo_label")
    )
    first = samples[draw.samples[0]]
    pseudo_label = signed(read_fields(first).pseudo_label[None])
    with torch.no_grad():
        view = networks.teacher.render(networks.teacher.encode(pseudo_label), torch.from_numpy(first.camera)[None])
    assert (edited[0].image[0] == pseudo_label[0]).all()
    torch.testing.assert_close(seen[0].image[0], view.image[0].clamp(-1, 1), atol=0.01, rtol=0.0)  # stored in 8 bits
    assert (seen[0].depth == edited[0].depth).all()
    assert (seen[1].image == edited[1].image).all()


def test_a_leaking_dataset_is_refused(root: Path, dataset: Path) -> None:
    samples = read_samples(dataset, root)
    check_no_leakage(samples)
    tested = next(sample for sample in samples if sample.split == "test")
    with pytest.raises(UserError, match="leaks"):
        check_no_leakage([*samples, dataclasses.replace(tested, split="train", prompt_split="train", prompt="new")])
    learned = next(sample for sample in samples if sample.split == "train")
    with pytest.raises(UserError, match="leaks"):
        check_no_leakage([*samples, dataclasses.replace(learned, portrait_id="copy", person=tested.person)])
    with pytest.raises(UserError, match="leaks"):
        check_no_leakage(
            [*samples, dataclasses.replace(tested, portrait_id="other", split="train", prompt_split="train")]
        )
    with pytest.raises(UserError, match="leaks"):
        check_no_leakage([dataclasses.replace(samples[0], split="train", prompt_split="test", prompt="x")])
    # The words of a test prompt count, in whichever style and spelling they are trained on.
    learned = next(sample for sample in samples if sample.split == "train")
    with pytest.raises(UserError, match="leaks"):
        check_no_leakage([*samples, dataclasses.replace(learned, style="other", prompt=f"{tested.prompt.upper()}!")])


@pytest.mark.parametrize("triplane", ["none", "q8", "fp16"])
def test_a_triplane_is_the_same_however_it_is_stored(
    tmp_path: Path, networks: Networks, triplane: str, root: Path
) -> None:
    folder = taught.write_dataset(tmp_path, networks.teacher, TeachSettings(views=1, triplane=triplane))
    samples, prompts, student = taught.begin_lesson(folder, tmp_path, networks)
    maker = BatchMaker(student, networks.teacher, prompts, DistillSettings())
    assert (read_fields(samples[0]).triplane is None) == (triplane == "none")
    found = maker.triplane(samples[0], read_fields(samples[0]))
    with torch.no_grad():
        exact = networks.teacher.encode(signed(read_fields(samples[0]).pseudo_label[None]))[0]
    assert (found - exact).norm() / exact.norm() < (0.02 if triplane == "q8" else 1e-3)


def test_memory_keeps_what_fits_and_makes_the_rest_again() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    memory: Memory[str] = Memory(1, lambda value: 700_000)
    for name in ("a", "b", "a", "b"):
        assert memory.get(name, lambda name=name: make(name)) == name
    assert made == ["a", "b", "b"]
