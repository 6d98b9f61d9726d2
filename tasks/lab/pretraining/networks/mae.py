"""The embedded MAE, whose tokens are image prompts: masked autoencoding of pictures in every look."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.three_d.mae import EMBEDDED, LAYER_NORM_EPS, Block, MaeConfig, MaeEncoder, normalise, position_table
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of, save_half
from tasks.lab.pretraining.pictures import LOOKS, Pictures

BATCH = 48


class MaskedAutoencoder(nn.Module):
    """The pretraining: reconstruct masked patches from the visible ones (He et al., section 3)."""

    def __init__(self, config: MaeConfig, masked_share: float = 0.75) -> None:
        super().__init__()
        self.config = config
        self.kept_patches = round(config.grid**2 * (1 - masked_share))
        self.encoder = MaeEncoder(config)
        self.decoder_embed = nn.Linear(config.width, config.decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, config.decoder_width))
        places = position_table(config.decoder_width, config.grid)[None]
        self.decoder_pos_embed = nn.Parameter(places, requires_grad=False)
        heads = max(1, config.decoder_width // 32)
        self.decoder_blocks = nn.ModuleList([Block(config.decoder_width, heads) for _ in range(config.decoder_depth)])
        self.decoder_norm = nn.LayerNorm(config.decoder_width, eps=LAYER_NORM_EPS)
        self.decoder_pred = nn.Linear(config.decoder_width, 3 * config.patch_size**2)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """images: (B, 3, S, S), see `normalise`.  Returns the loss: mean squared error on masked patches.

        Each patch is compared after its own mean and deviation are taken out, as in the paper's better
        variant.
        """
        patches = self.config.grid**2
        scores = torch.rand(len(images), patches, generator=generator, device=generator.device).to(images.device)
        order = scores.argsort(dim=1)
        kept, masked = order[:, : self.kept_patches], order[:, self.kept_patches :]
        predicted = self.reconstruct(images, kept)
        pixels = F.pixel_unshuffle(images, self.config.patch_size).flatten(2).transpose(1, 2)
        target = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
        chosen = masked[..., None].expand(-1, -1, target.shape[2])
        return F.mse_loss(predicted.gather(1, chosen), target.gather(1, chosen))

    def reconstruct(self, images: Tensor, kept: Tensor) -> Tensor:
        """images: (B, 3, S, S).  kept: (B, K) visible patches. Returns (B, T, 3 * P * P), each patch normalised."""
        seen = self.decoder_embed(self.encoder(images, kept))
        width = seen.shape[2]
        full = self.mask_token.expand(len(images), self.config.grid**2, width)
        full = full.scatter(1, kept[..., None].expand(-1, -1, width), seen[:, 1:])
        tokens = torch.cat([seen[:, :1], full], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_pred(self.decoder_norm(tokens))[:, 1:]


def build(weights: Path) -> nn.Module:
    return MaskedAutoencoder(EMBEDDED)


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    assert isinstance(network, MaskedAutoencoder)
    looks = draw.rng.integers(len(LOOKS), size=BATCH)
    images = torch.from_numpy(pictures.crops[batch_of(pictures, draw, BATCH), looks])
    value = network(normalise(images, EMBEDDED.image_size), draw.torch_rng)
    return value, {}


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, MaskedAutoencoder)
    target = folder / "mae"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(EMBEDDED.to_dict(), indent=1))
    save_half(network.encoder, target / "mae.safetensors")


RECIPE = Recipe("mae", steps=3000, lr=2e-3, build=build, loss=loss, save=save, ema=0.99, optimizer="muon")
