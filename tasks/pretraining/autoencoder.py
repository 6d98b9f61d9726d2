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
ENCODER_SHARE = 0.3  # of the training; then the decoder learns alone, and the latents stay what they are
LATENT_NOISE = 0.07  # share of each channel's spread
DECODER_NOISE = 0.03  # the same while the decoder learns alone, on half of the samples
EDGE_WEIGHT, SQUARE_WEIGHT = 0.5, 4.0


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
    """L1 of the picture and of its gradients; while the decoder learns alone, the squared error as well.

    The latent noise has a fixed share of the latents' spread instead of a learned variance under a KL term
    (Rombach et al. 2022, section 3.1): it smooths the latent space as well and learns far sooner.
    """
    assert isinstance(network, diffusers.AutoencoderKL)
    people = batch_of(pictures, draw, BATCH)
    looks = draw.rng.integers(pictures.crops.shape[1], size=BATCH)
    looks[: BATCH // 4] = 0
    images = to_signed(pictures.crops[people, looks])
    both = draw.progress < ENCODER_SHARE
    with torch.set_grad_enabled(both):
        mean = network.encode(images).latent_dist.mean.float()
    spread = mean.detach().std(dim=(0, 2, 3), keepdim=True)
    noise = torch.randn(mean.shape, generator=draw.torch_rng)
    if both:
        latents = mean + LATENT_NOISE * spread * noise
    else:
        some = torch.from_numpy(draw.rng.random(BATCH) < 0.5)[:, None, None, None]
        latents = mean + DECODER_NOISE * spread * noise * some
    output = network.decode(latents).sample.float()
    pixel = (output - images).abs().mean()
    square = (output - images).square().mean()
    across, down = ((output.diff(dim=axis) - images.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    edges = across + down
    value = pixel + EDGE_WEIGHT * edges if both else pixel + EDGE_WEIGHT / 2 * edges + SQUARE_WEIGHT * square
    return value, {"l1": pixel, "edges": edges, "square": square}


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
    "autoencoder", steps=10000, lr=2e-3, build=build, loss=loss, save=save, measure=measure, finish=finish,
    bfloat16=True, ema=0.995,
)  # fmt: skip
