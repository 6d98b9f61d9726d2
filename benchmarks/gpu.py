"""Speed of the paper's networks on a GPU, with random weights: latency, throughput and the share of its peak.

    .venv/bin/python -m benchmarks.gpu [--device cuda] [--peak-tflops 312] [--steps 20] [--batch 8] [--repeats 100]
    .venv/bin/python -m benchmarks.gpu --count          TFLOP of one forward pass of each network, on any machine
    .venv/bin/python -m benchmarks.gpu --device cpu --tiny     the same calls on small networks, to see that they run

Speed does not depend on what a network has learned. The student: portrait to one view, batch 1, median, CUDA events;
the paper's is 0.04 s. The editor: pictures a second one by one, as a loop would make them, and in a batch. Training:
steps a second where the teacher's part is read from shards, and where it is made at every step.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.training_speed import training_speed
from models.camera import orbit_label
from models.libraries import diffusers
from models.three_d import live3d, student
from models.three_d.live3d import Live3D
from models.three_d.student import Student
from models.zoo.random_weights import UNET, VAE

PAPER_SECONDS = 0.04  # of one edited view


def networks(tiny: bool, device: str) -> tuple[Live3D, Student, torch.Tensor, torch.Tensor]:
    """Teacher, student, a portrait (1, 3, H, H) and prompt tokens (1, T, D)."""
    config = live3d.EMBEDDED if tiny else live3d.PAPER_LT
    sizes = student.EMBEDDED if tiny else dataclasses.replace(student.PAPER, mae=None)
    with torch.device(device):
        teacher = Live3D(config).eval().requires_grad_(False)
        learner = Student(sizes).eval()
        portrait = torch.zeros(1, 3, config.encoder.image_size, config.encoder.image_size)
        tokens = torch.randn(1, 77, sizes.text_token_size)
    return teacher, learner, portrait, tokens


def unet_and_vae(tiny: bool, device: str) -> tuple[Any, Any, int]:
    """The editor's denoiser and autoencoder, and the width of its latents."""
    small = {"block_out_channels": (32, 64, 64, 64), "sample_size": 8} if tiny else {}
    with torch.device(device):
        unet = diffusers.UNet2DConditionModel(**{**UNET, **small}).eval().requires_grad_(False)
        vae = diffusers.AutoencoderKL(**{**VAE, **({"block_out_channels": (32,) * 4} if tiny else {})}).eval()
    return unet, vae, 8 if tiny else 64


def tflop(work: Callable[[], object]) -> float:
    """Counted multiplications and additions of one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 1e12


def count() -> dict[str, float]:
    """TFLOP of one pass at 512x512; nothing is computed. Sampling of planes is not counted."""
    teacher, learner, portrait, tokens = networks(False, "meta")
    unet, vae, latent = unet_and_vae(False, "meta")
    zeros = torch.device("meta")
    with torch.no_grad(), zeros:
        planes, camera = torch.zeros(1, 96, 256, 256), torch.zeros(1, 25)
        return {
            "unet, a branch": tflop(lambda: unet(torch.zeros(1, 8, latent, latent), torch.zeros(1), tokens)),
            "vae encode": tflop(lambda: vae.encode(torch.zeros(1, 3, 512, 512))),
            "vae decode": tflop(lambda: vae.decode(torch.zeros(1, 4, latent, latent))),
            "teacher encode": tflop(lambda: teacher.encode(portrait)),
            "render": tflop(lambda: teacher.render(planes, camera)),
            "student encode": tflop(lambda: learner.encode(portrait, tokens, "text")),
        }


def seconds(work: Callable[[], object], repeats: int, device: str) -> float:
    """Median of one call, after three that warm up; by CUDA events where there are any."""
    for _ in range(3):
        work()
    spent = []
    for _ in range(repeats):
        if device.startswith("cuda"):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            spent.append(start.elapsed_time(end) / 1e3)
        else:
            started = time.perf_counter()
            work()
            spent.append(time.perf_counter() - started)
    return median(spent)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The document."""
    device, tiny = options.device, options.tiny
    on_gpu = device.startswith("cuda")
    teacher, learner, portrait, tokens = networks(tiny, device)
    camera = orbit_label(0.1, 0.0).to(device)

    def edit() -> object:
        return learner.render(learner.encode(portrait, tokens, "text"), camera)

    document: dict[str, Any] = {"device": torch.cuda.get_device_name() if on_gpu else "cpu", "tiny": tiny}
    with torch.no_grad():
        planes = teacher.encode(portrait)
        work = tflop(edit)
        document["student_s"] = {"fp32": seconds(edit, options.repeats, device), "paper": PAPER_SECONDS}
        with torch.autocast(device.partition(":")[0], torch.bfloat16):
            document["student_s"]["bf16"] = seconds(edit, options.repeats, device)
        view = seconds(lambda: teacher.render(planes, camera), options.repeats, device)
        document["teacher_views_per_s"] = 1 / view
        document["editor_pictures_per_s"] = edit_speed(options)

    def timer(step: Callable[[], object]) -> float:
        return seconds(step, max(1, options.repeats // 5), device)

    speeds = training_speed(teacher, learner, tokens, options.train_batch, timer)
    document["training_steps_per_s"] = {f"batch {options.train_batch}, {name}": each for name, each in speeds.items()}
    if options.peak_tflops:
        document["student_share_of_peak"] = work / document["student_s"]["bf16"] / options.peak_tflops
    return document


def edit_speed(options: argparse.Namespace) -> dict[str, float]:
    """Pictures a second: denoising steps with three branches, and the autoencoder; alone and in a batch."""
    unet, vae, latent = unet_and_vae(options.tiny, options.device)
    kind = torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    unet, vae = unet.to(kind), vae.to(kind)

    def edit(batch: int) -> object:
        zeros = torch.zeros(batch, 4, latent, latent, device=options.device, dtype=kind)
        text = torch.zeros(3 * batch, 77, UNET["cross_attention_dim"], device=options.device, dtype=kind)
        for step in range(options.steps):
            unet(torch.cat([torch.cat([zeros] * 3), torch.cat([zeros] * 3)], 1), torch.tensor(step), text)
        return vae.decode(zeros)

    repeats = max(1, options.repeats // 20)
    alone = seconds(lambda: edit(1), repeats, options.device)
    together = seconds(lambda: edit(options.batch), repeats, options.device)
    return {"one by one": 1 / alone, f"in batches of {options.batch}": options.batch / together}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--train-batch", type=int, default=4, help="samples a step: the paper's 32 on eight GPUs")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    document = count() if options.count else measure(options)
    text = json.dumps({name: np.round(v, 3) if isinstance(v, float) else v for name, v in document.items()}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
