"""Losses of distillation, and the values of a triplane that have more weight."""

from pathlib import Path

import pytest
import torch

from data_catalog.config.settings import DistillSettings
from models.camera import orbit_label
from models.pixels import signed
from models.three_d.live3d import Live3D
from models.three_d.losses import LossWeights, ViewTarget, distillation_loss, triplane_loss
from tasks.distill import Networks
from tasks.training.batches import BatchMaker
from tasks.training.data import Sampler, read_fields
from tests.worlds import taught


def test_losses_vanish_at_the_target_and_follow_their_weights(networks: Networks) -> None:
    teacher: Live3D = networks.teacher
    triplane = torch.randn(2, 36, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        view = teacher.render(triplane, orbit_label(torch.tensor([0.1, -0.2]), 0.0))
    target = ViewTarget(view.image, view.depth)
    weights = LossWeights(triplane=0.1)
    same, _ = distillation_loss(triplane, view, [view], triplane, target, [target], networks.perceptual, weights)
    assert same == 0
    shifted = triplane + 0.5
    loss, parts = distillation_loss(shifted, view, [view], triplane, target, [target], networks.perceptual, weights)
    assert parts["loss_triplane"] == pytest.approx(0.5)
    assert loss == pytest.approx(0.05)
    other = ViewTarget(view.image + 0.1, view.depth)
    only_2d = LossWeights(lambda_3d=0.0, image_lpips=0.0)
    loss, parts = distillation_loss(shifted, view, [view], triplane, other, [target], networks.perceptual, only_2d)
    assert loss == pytest.approx(0.01, rel=1e-3)


def test_lpips_of_the_portraits_view_and_of_the_others_have_weights_of_their_own(networks: Networks) -> None:
    triplane = torch.randn(1, 36, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        view = networks.teacher.render(triplane, orbit_label(0.1, 0.0))
    other = ViewTarget(view.image + 0.1, view.depth)

    def parts(weights: LossWeights) -> tuple[float, float]:
        _, found = distillation_loss(triplane, view, [view], triplane, other, [other], networks.perceptual, weights)
        return float(found["loss_2d"]), float(found["loss_view"])

    with_lpips, without = parts(LossWeights())[0], parts(LossWeights(image_lpips=0.0))[0]
    assert without < with_lpips
    assert parts(LossWeights(view_lpips=0.0)) == pytest.approx((with_lpips, without))
    assert parts(LossWeights(image_lpips=0.0)) == pytest.approx((without, with_lpips))


def test_what_an_edit_moves_counts_more_and_the_mean_stays(networks: Networks, root: Path, dataset: Path) -> None:
    samples, prompts, student = taught.begin_lesson(dataset, root, networks)
    plain, weighted = (
        BatchMaker(student, networks.teacher, prompts, DistillSettings(changed_weight=weight)) for weight in (0.0, 8.0)
    )
    read = [read_fields(sample) for sample in samples[:2]]
    triplane = torch.stack([weighted.triplane(*pair) for pair in zip(samples[:2], read, strict=True)])
    assert bool((plain.changed(samples[:2], read, triplane) == 1).all())
    portrait = signed(read[0].portrait[None])
    with torch.no_grad():
        moved = (triplane[:1] - networks.teacher.encode(portrait)).abs().mean(dim=1, keepdim=True)
    weights = weighted.changed(samples[:2], read, triplane)
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3)), torch.ones(2))
    assert float(weights[0].flatten()[moved.argmax()]) == float(weights[0].max())
    torch.testing.assert_close(weights[:1], (1 + 8 * moved / moved.mean()) / 9)
    shifted = triplane + 1.0
    assert float(triplane_loss(shifted, triplane, weights)) == pytest.approx(1.0, rel=1e-5)
    assert float(triplane_loss(shifted, triplane)) == pytest.approx(1.0)


def test_the_weights_by_sensitivity_have_mean_one_and_are_the_same_whenever_they_are_found(
    networks: Networks, root: Path, dataset: Path
) -> None:
    samples, prompts, student = taught.begin_lesson(dataset, root, networks)
    settings = DistillSettings(sensitivity_weight=10.0)
    maker = BatchMaker(student, networks.teacher, prompts, settings)
    draw = Sampler(samples, 4, 0.0, 1, 0).draw(0, 2)
    weights = maker.make(samples, draw).counts
    assert weights.shape == maker.make(samples, draw).triplane.shape
    torch.testing.assert_close(weights.mean(dim=(1, 2, 3)), torch.ones(4))
    again = BatchMaker(student, networks.teacher, prompts, settings).make(samples, draw)
    assert (weights == again.counts).all()  # the same whenever it is found
