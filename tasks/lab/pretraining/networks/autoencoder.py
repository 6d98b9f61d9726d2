"""The editor's autoencoder: 64x64 pictures to 16x16 latents of 16 channels and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from models.judges.perceptual import Perceptual
from models.libraries import diffusers
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of, to_signed
from tasks.lab.pretraining.pictures import Pictures, changed_pixels, share_out

BATCH = 8
LATENT_CHANNELS = 16
ENCODER_SHARE = 0.3  # of the training; then the decoder learns alone, and the latents stay what they are
LATENT_NOISE = 0.07  # share of each channel's spread
DECODER_NOISE = 0.03  # the same while the decoder learns alone, on half of the samples
CHANGED_WEIGHT = 1.0  # extra weight, shared by the pixels that an edit changes
SMALLEST_CHANGE = 0.005  # share of the picture below which an edit's pixels gain no more weight
EDGE_WEIGHT, SQUARE_WEIGHT, LPIPS_WEIGHT = 0.5, 4.0, 0.3


class AutoencoderTraining(nn.Module):
    """Autoencoder in training, with the frozen LPIPS of its decoder's loss."""

    def __init__(self, vae: diffusers.AutoencoderKL, perceptual: Perceptual) -> None:
        super().__init__()
        self.vae = vae
        self.perceptual = perceptual


def build(weights: Path) -> nn.Module:
    vae = diffusers.AutoencoderKL(
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
    return AutoencoderTraining(vae, Perceptual.load(weights / "perceptual"))


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    """L1 of the picture and of its gradients; while the decoder learns alone, the squared error and LPIPS as well.

    The decoder's loss weights places that an edit changes, such as brows that turn red, in every look: weighted in
    that edit only, it paints brows reddish in every look.
    The latent noise has a fixed share of the latents' spread instead of a learned variance under a KL term
    (Rombach et al. 2022, section 3.1): it smooths the latent space as well and learns far sooner.
    """
    assert isinstance(network, AutoencoderTraining)
    people = batch_of(pictures, draw, BATCH)
    looks = draw.rng.integers(pictures.crops.shape[1], size=BATCH)
    looks[: BATCH // 4] = 0
    crops = pictures.crops[people, looks]
    images = to_signed(crops)
    both = draw.progress < ENCODER_SHARE
    with torch.set_grad_enabled(both):
        mean = network.vae.encode(images).latent_dist.mean.float()
    spread = mean.detach().std(dim=(0, 2, 3), keepdim=True)
    noise = torch.randn(mean.shape, generator=draw.torch_rng)
    if both:
        latents = mean + LATENT_NOISE * spread * noise
    else:
        some = torch.from_numpy(draw.rng.random(BATCH) < 0.5)[:, None, None, None]
        latents = mean + DECODER_NOISE * spread * noise * some
    output = network.vae.decode(latents).sample.float()
    error = (output - images).abs()
    across, down = ((output.diff(dim=axis) - images.diff(dim=axis)).abs().mean() for axis in (-1, -2))
    if both:
        parts = {"l1": error.mean(), "edges": across + down}
        return parts["l1"] + EDGE_WEIGHT * parts["edges"], parts
    some_edit = pictures.crops[people, draw.rng.integers(pictures.crops.shape[1], size=BATCH)]
    weight = share_out(changed_pixels(some_edit, pictures.crops[people, 0]), SMALLEST_CHANGE, CHANGED_WEIGHT)
    parts = {
        "l1": (error * weight).mean(),
        "edges": across + down,
        "square": error.square().mean(),
        "lpips": network.perceptual(output, images).mean(),
    }
    value = parts["l1"] + EDGE_WEIGHT / 2 * parts["edges"] + SQUARE_WEIGHT * parts["square"]
    return value + LPIPS_WEIGHT * parts["lpips"], parts


@torch.no_grad()
def finish(network: nn.Module, pictures: Pictures) -> None:
    """Give every latent channel mean 0 and spread 1 by folding the change into the two 1x1 convolutions."""
    assert isinstance(network, AutoencoderTraining)
    vae = network.vae
    assert vae.quant_conv is not None
    assert vae.post_quant_conv is not None
    images = to_signed(pictures.crops[:48].reshape(-1, *pictures.crops.shape[2:]))
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in images.split(64)])
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    into, out = vae.quant_conv, vae.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= spread[None, :, None, None]
    into.weight[:LATENT_CHANNELS] /= spread[:, None, None, None]
    into.bias[:LATENT_CHANNELS] = (into.bias[:LATENT_CHANNELS] - mean) / spread
    vae.register_to_config(scaling_factor=1.0)


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, AutoencoderTraining)
    network.vae.half().save_pretrained(folder / "vae")


RECIPE = Recipe(
    "autoencoder", steps=8000, lr=2e-3, build=build, loss=loss, save=save, finish=finish,
    bfloat16=True, ema=0.995, optimizer="muon",
)  # fmt: skip
