"""Image prompts: a ViT encoder trained as a masked autoencoder (He et al. 2022), and how to pretrain it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class MaeConfig:
    """Sizes of the encoder; the defaults are ViT-B/16, whose tokens 3DPE reads."""

    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    decoder_width: int = 512  # used in pretraining only
    decoder_depth: int = 8

    @property
    def grid(self) -> int:
        """Patches across the image."""
        return self.image_size // self.patch_size

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


EMBEDDED = MaeConfig(image_size=64, patch_size=8, width=96, depth=4, heads=4, decoder_width=64, decoder_depth=2)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T, D).  Returns the same shape."""
        batch, count, width = tokens.shape
        query, key, value = self.qkv(tokens).view(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, width))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T, D).  Returns the same shape."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T, D).  Returns the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))


class PatchEmbed(nn.Module):
    """Patches to tokens; a module for its key name."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W).  Returns (B, T, D), row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


class MaeEncoder(nn.Module):
    """Plain ViT with a class token and fixed positions that are stored as a parameter."""

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, config.width))
        self.pos_embed = nn.Parameter(position_table(config.width, config.grid)[None], requires_grad=False)
        self.blocks = nn.ModuleList([Block(config.width, config.heads) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPS)

    def forward(self, images: Tensor, kept: Tensor | None = None) -> Tensor:
        """images: (B, 3, S, S), see `normalise`.  kept: (B, K) patches to look at, all when None.

        Returns the class token and the patches' tokens, (B, 1 + K, D).
        """
        tokens = self.patch_embed(images) + self.pos_embed[:, 1:]
        if kept is not None:
            tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2]))
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


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


class Mae:
    """Map pictures to prompt tokens."""

    def __init__(self, encoder: MaeEncoder) -> None:
        self.encoder = encoder.eval().requires_grad_(False)

    @classmethod
    def from_state(cls, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Build from `MaeConfig.to_dict` and the encoder's state dict."""
        encoder = MaeEncoder(MaeConfig(**config))
        encoder.load_state_dict(state)
        return cls(encoder)

    @torch.no_grad()
    def tokens(self, images: Tensor | np.ndarray) -> Tensor:
        """images: uint8 (B, H, W, 3).  Returns (B, 1 + T, D): the class token, then one token a patch."""
        place = self.encoder.cls_token
        return self.encoder(
            normalise(torch.as_tensor(images, device=place.device), self.encoder.config.image_size).to(place)
        )


def normalise(images: Tensor, size: int, antialias: bool = False) -> Tensor:
    """uint8 (B, H, W, 3) to (B, 3, size, size), ImageNet statistics.

    3DPE pins a torchvision whose bicubic resize of tensors does not antialias; its weights were trained so.
    """
    scaled = images.permute(0, 3, 1, 2).float().div(255)
    if scaled.shape[-2:] != (size, size):
        scaled = F.interpolate(scaled, (size, size), mode="bicubic", align_corners=False, antialias=antialias)
    mean = scaled.new_tensor(IMAGENET_MEAN)[:, None, None]
    return (scaled - mean) / scaled.new_tensor(IMAGENET_STD)[:, None, None]


def position_table(width: int, grid: int) -> Tensor:
    """Sine-cosine positions (1 + grid^2, width): zeros for the class token; half for the column, half for the row."""
    rate = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * rate
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    columns = line[None].expand(grid, -1, -1)
    rows = line[:, None].expand(-1, grid, -1)
    places = torch.cat([columns, rows], dim=2).reshape(grid * grid, width)
    return F.pad(places, (0, 0, 1, 0)).float()
