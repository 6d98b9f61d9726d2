"""The editor's autoencoder: 64x64 pictures to 16x16 latents of 12 channels and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.libraries import diffusers
from tasks.pretraining.loop import Draw, Recipe, batch_of, to_signed
from tasks.pretraining.pictures import Pictures

BATCH = 8
LATENT_CHANNELS = 12
LATENT_NOISE = 0.07  # share of each channel's spread
EDGE_WEIGHT = 0.5


def build(weights: Path) -> nn.Module:
    return diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
    )


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 of the picture and of its gradients.

    The latent noise has a fixed share of the latents' spread instead of a learned variance under a KL term
    (Rombach et al. 2022, section 3.1): it smooths the latent space as well and learns far sooner.
    """
    assert isinstance(network, diffusers.AutoencoderKL)
    people = batch_of(pictures, draw, BATCH)
    looks = draw.rng.integers(pictures.crops.shape[1], size=BATCH)
    looks[: BATCH // 4] = 0
    images = to_signed(pictures.crops[people, looks])
    mean = network.encode(images).latent_dist.mean.float()
    spread = mean.detach().std(dim=(0, 2, 3), keepdim=True)
    latents = mean + LATENT_NOISE * spread * torch.randn(mean.shape, generator=draw.torch_rng)
    output = network.decode(latents).sample.float()
    pixel = (output - images).abs().mean()
    edges = (output.diff(dim=-1) - images.diff(dim=-1)).abs().mean() + (
        output.diff(dim=-2) - images.diff(dim=-2)
    ).abs().mean()
    return pixel + EDGE_WEIGHT * edges, {"l1": pixel, "edges": edges}


@torch.no_grad()
def finish(network: nn.Module, pictures: Pictures) -> None:
    """Give every latent channel mean 0 and spread 1 by folding the change into the two 1x1 convolutions."""
    assert isinstance(network, diffusers.AutoencoderKL)
    assert network.quant_conv is not None
    assert network.post_quant_conv is not None
    images = to_signed(pictures.crops[:48].reshape(-1, *pictures.crops.shape[2:]))
    latents = torch.cat([network.encode(part).latent_dist.mode() for part in images.split(64)])
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    into, out = network.quant_conv, network.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= spread[None, :, None, None]
    into.weight[:LATENT_CHANNELS] /= spread[:, None, None, None]
    into.bias[:LATENT_CHANNELS] = (into.bias[:LATENT_CHANNELS] - mean) / spread
    network.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def measure(network: nn.Module, pictures: Pictures) -> dict[str, float]:
    """Reconstruction PSNR in dB over every look of held-out people."""
    assert isinstance(network, diffusers.AutoencoderKL)
    psnr = []
    for crops in pictures.crops[:64]:
        images = to_signed(crops)
        output = network.decode(network.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
        error = ((output - images) / 2).square().mean(dim=(1, 2, 3))
        psnr.append(-10 * torch.log10(error))
    by_look = torch.stack(psnr).mean(0)
    return {
        "psnr_db": float(by_look.mean()),
        "psnr_plain_db": float(by_look[0]),
        "psnr_worst_style_db": float(by_look.min()),
    }


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, diffusers.AutoencoderKL)
    network.half().save_pretrained(folder / "vae")


RECIPE = Recipe(
    "autoencoder", steps=3000, lr=2e-3, build=build, loss=loss, save=save, measure=measure, finish=finish,
    bfloat16=True, ema=0.995,
)  # fmt: skip
