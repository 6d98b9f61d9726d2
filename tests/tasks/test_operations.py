"""Operations of the paper's networks, counted at full size on a device without memory."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.libraries import diffusers, transformers
from models.three_d import live3d, student
from models.three_d.live3d import Live3D
from models.three_d.student import Student
from models.zoo.random_weights import TEXT_TOWER, UNET, VAE
from tasks.evaluation import operations
from tasks.evaluation.operations import counted_speedup


def tflop(work: Callable[[], object]) -> float:
    """Counted multiplications and additions of one call; sampling of planes is not counted."""
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 1e12


def count() -> dict[str, float]:
    """TFLOP of one pass of each network, 512x512."""
    with torch.device("meta"):
        teacher = Live3D(live3d.PAPER_LT).eval()
        learner = Student(dataclasses.replace(student.PAPER, mae=None)).eval()
        unet, vae = diffusers.UNet2DConditionModel(**UNET), diffusers.AutoencoderKL(**VAE)
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT_TOWER)).eval()
        portrait, tokens = torch.zeros(1, 3, 512, 512), torch.zeros(1, 77, 768)
        for network in (teacher, learner, unet, vae, text):
            network.requires_grad_(False)
        words = torch.zeros(1, 77, dtype=torch.long)
        planes, camera = torch.zeros(1, 96, 256, 256), torch.zeros(1, 25)
        latents, noised = torch.zeros(1, 4, 64, 64), torch.zeros(1, 8, 64, 64)
    return {
        "UNET": tflop(lambda: unet(noised, torch.zeros(1), tokens)),
        "VAE_ENCODE": tflop(lambda: vae.encode(portrait)),
        "VAE_DECODE": tflop(lambda: vae.decode(latents)),
        "ENCODE": tflop(lambda: teacher.encode(portrait)),
        "RENDER": tflop(lambda: teacher.render(planes, camera)),
        "STUDENT": tflop(lambda: learner.encode(portrait, tokens, "text")),
        "PROMPT": tflop(lambda: text(words)),
    }


def test_the_operations_of_the_paper_s_networks_are_those_counted_and_so_is_their_ratio() -> None:
    counted = count()
    for name, value in counted.items():
        assert getattr(operations, name) == pytest.approx(value, rel=0.01, abs=0.001), name
    student_s = counted["PROMPT"] + counted["STUDENT"] + counted["RENDER"]
    teachers_s = counted["VAE_ENCODE"] + counted["VAE_DECODE"] + counted["PROMPT"] + counted["ENCODE"]
    teachers_s += counted["RENDER"] + 3 * 100 * counted["UNET"]
    assert counted_speedup(100) == pytest.approx(teachers_s / student_s, rel=0.01)
    assert counted_speedup(100) > 300
