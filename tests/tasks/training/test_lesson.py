"""Forward pass of training: the student's output for a batch equals that for each sample alone."""

import pytest
import torch
from torch.nn.utils import convert_conv2d_weight_memory_format

from models.camera import orbit_label
from models.judges.perceptual import Perceptual
from models.three_d import recompute
from models.three_d.losses import image_loss
from models.three_d.patches import crop, draw_corners, draw_noise, render_patches
from models.three_d.student import Features, PromptKind, Student
from tasks.training.batches import Batch, PromptGroup
from tasks.training.trainer import Lesson
from tests.worlds import taught


def test_a_batch_of_texts_and_pictures_is_edited_as_each_sample_alone() -> None:
    torch.manual_seed(0)
    student = Student.from_teacher(taught.untrained_teacher()).eval()
    torch.nn.init.normal_(student.encoder.Ref_encoder.proj_tail.weight, std=0.1)
    features = student.features(torch.rand(5, 3, 64, 64) * 2 - 1)
    texts, pictures = torch.randn(3, 7, 96), torch.randn(2, 16, 96)
    prompts = [
        PromptGroup("text", torch.tensor([1, 2, 4]), texts),
        PromptGroup("image", torch.tensor([0, 3]), pictures),
    ]
    nothing = torch.empty(0)
    batch = Batch(features, prompts, nothing, nothing, nothing, [])
    asked: list[tuple[PromptKind, torch.Tensor]] = [("image", pictures[0]), ("text", texts[0]), ("text", texts[1])]
    asked += [("image", pictures[1]), ("text", texts[2])]
    alone = [
        student.edit(Features(features.low[i : i + 1], features.high[i : i + 1]), tokens[None], kind)
        for i, (kind, tokens) in enumerate(asked)
    ]
    convert_conv2d_weight_memory_format(student.encoder, torch.channels_last)  # as where it learns
    triplane, renders = Lesson(student, patch_rays=32, precision="float32")(batch)
    assert triplane.is_contiguous()
    assert not renders
    torch.testing.assert_close(triplane, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert (alone[0] - alone[1]).abs().mean() > 0.01  # so that places which change places would be seen


def test_a_patch_shows_what_the_whole_view_shows_there() -> None:
    teacher = taught.untrained_teacher()
    triplane = torch.randn(2, 36, 32, 32, generator=torch.Generator().manual_seed(0))
    cameras, corners = orbit_label(torch.tensor([0.1, -0.2]), 0.0), torch.tensor([[3, 8], [16, 0]])
    with torch.no_grad():
        noise = draw_noise(teacher, 1, 32, [generator_of(5), generator_of(6)])
        whole = render_patches(teacher, triplane, cameras, corners * 0, 32, noise)
        again = teacher.render(triplane[1:], cameras[1:], generator_of(6))
    torch.testing.assert_close(whole.image[1:], again.image)
    torch.testing.assert_close(whole.depth[1:], again.depth)
    patch = crop(whole.image, corners, 16, 32)
    assert patch[0].equal(whole.image[0, :, 6:38, 16:48])
    assert patch[1].equal(whole.image[1, :, 32:64, 0:32])
    drawn = draw_corners(250, 32, 16, [generator_of(0), generator_of(1)])
    assert drawn[:, 1].equal(draw_corners(250, 32, 16, [generator_of(1)])[:, 0])
    assert (int(drawn.min()), int(drawn.max())) == (0, 16)


def test_pictures_in_parts_are_computed_again_and_are_those_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, perceptual = taught.untrained_teacher(), Perceptual.untrained().eval()
    planes = torch.randn(3, 36, 32, 32, generator=generator_of(0))
    cameras, corners = orbit_label(torch.tensor([0.1, -0.2, 0.3]), 0.0), torch.zeros(3, 2, dtype=torch.int64)
    noise, calls = draw_noise(teacher, 1, 32, [generator_of(seed) for seed in range(3)]), []
    block = teacher.renderer.superresolution.get_submodule("block0")
    block.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    target = torch.rand(3, 3, 64, 64, generator=generator_of(4)) * 2 - 1
    found = []
    for pixels, expected in ((2**20, [3]), (2 * 64**2, [2, 1, 1, 2])):  # forwards, and backwards once more
        monkeypatch.setattr(recompute, "PIXELS_AT_ONCE", pixels)
        calls.clear()
        given = planes.clone().requires_grad_(True)
        seen = render_patches(teacher, given, cameras, corners, 32, noise)
        loss = image_loss(seen.image, target, perceptual, 1.0, 2.0)
        found.append([loss.detach(), seen.image.detach(), *torch.autograd.grad(loss, given)])
        assert calls == expected
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-6)


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
