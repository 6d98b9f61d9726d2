"""Image prompts: a ViT encoder trained as a masked autoencoder (He et al. 2022)."""

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
