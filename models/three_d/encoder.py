"""Live3D's two-branch encoder: a portrait to a triplane, with the key names of the public checkpoints.

`encoder` + `decoder` + `F_encoder` are the low branch (E_low of 3DPE), `EHigh_encoder` is the high branch
(E_high), `Final_encoder` is the triplane transformer (E_t).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.three_d.segformer import OverlapPatchEmbed, SegformerBlock, to_grid


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder; the defaults are Live3D's published LT model.

    `layout` "normal" is Live3D's other variant: the branches meet at twice the resolution.
    """

    image_size: int = 512
    layout: Literal["lt", "normal"] = "lt"
    normalised_pixel_index: bool = False  # False: rows and columns as integers, as the public weights expect
    stem_channels: int = 64
    stem_pool: bool = True
    trunk_channels: tuple[int, ...] = (64, 128, 256, 512)  # the last two are in the checkpoints and never run
    trunk_blocks: tuple[int, ...] = (3, 4, 6, 3)
    low_channels: int = 256
    dilations: tuple[int, int, int] = (12, 24, 36)
    dropout: float = 0.5
    token_size: int = 1024
    patch_kernel: int = 7
    low_blocks: int = 2
    low_heads: int = 4
    f_channels: tuple[int, ...] = (128, 128)
    high_channels: tuple[int, ...] = (64, 128, 128, 128, 128, 128, 128)
    high_strides: tuple[int, ...] = (2, 2, 1, 1, 1, 1, 1)
    merge_channels: tuple[int, ...] = (256,)  # before the triplane transformer
    final_heads: int = 2
    output_channels: tuple[int, ...] = (256, 128, 128, 96, 96)
    upsample_after: int = 0  # the output convolution after which the triplane doubles; "lt" only

    @property
    def triplane_channels(self) -> int:
        """Channels of all three planes together."""
        return self.output_channels[-1]


class Live3DEncoder(nn.Module):
    """Portrait to triplane (Live 3D Portrait, section 3.1; 3DPE, section 3.1)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ResNetTrunk(config)
        self.decoder = nn.Sequential(
            DilatedPyramid(config.trunk_channels[1], config.low_channels, config.dilations, config.dropout),
            nn.Conv2d(config.low_channels, config.low_channels, 3, padding=1),
        )
        self.F_encoder = LowTokens(config)
        self.EHigh_encoder = HighBranch(config)
        self.Final_encoder = TriplaneTransformer(config)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) in [-1, 1].  Returns a triplane (B, 3*C, h, w)."""
        low, high = self.branches(images)
        return self.Final_encoder(high, low)

    def branches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (B, 3, H, W) in [-1, 1].  Returns f of E_low and the features of E_high, one size."""
        indexed = self.with_pixel_index(images)
        return self.F_encoder(self.low_features(indexed)), self.EHigh_encoder(indexed)

    def low_features(self, indexed: Tensor) -> Tensor:
        """Return the features of trunk and pyramid (B, low_channels, h, w).  indexed: (B, 5, H, W)."""
        return F.relu(self.decoder(self.encoder(indexed)))

    def with_pixel_index(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) with each pixel's row, then its column, as channels 4 and 5."""
        height, width = images.shape[2:]
        rows = torch.arange(height, dtype=images.dtype, device=images.device)
        columns = torch.arange(width, dtype=images.dtype, device=images.device)
        if self.config.normalised_pixel_index:
            rows, columns = (2 * rows + 1) / height - 1, (2 * columns + 1) / width - 1
        index = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        return torch.cat([images, index.expand(images.shape[0], 2, height, width)], dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a residual; no normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        changes = stride > 1 or inputs != outputs
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, I, H, W).  Returns (B, O, H/stride, W/stride)."""
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(self.conv2(F.relu(self.conv1(x))) + skip)


class ResNetTrunk(nn.Module):
    """ResNet-34 without batch norm, of which the first two stages run (at paper size: stride 8)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(5, config.stem_channels, 7, 2, padding=3)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if config.stem_pool else nn.Identity()
        inputs = config.stem_channels
        for i, (outputs, blocks) in enumerate(zip(config.trunk_channels, config.trunk_blocks, strict=True)):
            stage = [ResidualBlock(inputs, outputs, 1 if i == 0 else 2)]
            stage += [ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
            inputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 5, H, W).  Returns (B, trunk_channels[1], h, w)."""
        stem = self.pool(F.relu(self.conv1(x)))
        return self.get_submodule("layer2")(self.get_submodule("layer1")(stem))


class DilatedPyramid(nn.Module):
    """Atrous spatial pyramid pooling of DeepLabV3, without batch norm."""

    def __init__(self, inputs: int, outputs: int, dilations: Sequence[int], dropout: float) -> None:
        super().__init__()
        branches = [nn.Sequential(nn.Conv2d(inputs, outputs, 1))]
        branches += [nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=d, dilation=d)) for d in dilations]
        branches.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1)))
        self.convs = nn.ModuleList(branches)
        self.project = nn.Sequential(nn.Conv2d(len(branches) * outputs, outputs, 1), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, I, H, W).  Returns (B, O, H, W)."""
        seen = [F.relu(branch(x)) for branch in self.convs]
        seen[-1] = seen[-1].expand_as(seen[0])
        return self.project(torch.cat(seen, dim=1))


class LowTokens(nn.Module):
    """Tokens of the low branch: global relations, then twice (or four times) the resolution."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.token_size
        self.patchembed = OverlapPatchEmbed(config.low_channels, size, config.patch_kernel)
        self.blocks = nn.ModuleList([SegformerBlock(size, config.low_heads, 1) for _ in range(config.low_blocks)])
        if config.layout == "normal":
            self.net = _convolutions(size // 4, config.f_channels, nn.ReLU, upsample_after=0)
        else:
            self.net = _convolutions(size // 4, config.f_channels, nn.LeakyReLU)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, low_channels, h, w).  Returns f (B, F, 2h, 2w), or (B, F, 4h, 4w) in the "normal" layout."""
        # Relate all places of the picture.
        tokens, height, width = self.patchembed(x)
        for block in self.blocks:
            tokens = block(tokens, height, width)
        # Back to an image: twice the size by reshaping, twice by interpolation.
        grid = to_grid(tokens, height, width)
        return self.net(F.interpolate(grid, scale_factor=2, mode="bilinear", align_corners=True))


class HighBranch(nn.Module):
    """Convolutions that keep the portrait's detail."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 5
        for i, (outputs, stride) in enumerate(zip(config.high_channels, config.high_strides, strict=True)):
            kernel = 7 if i == 0 else 3
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.LeakyReLU()]
            inputs = outputs
        self.net = nn.Sequential(*(layers if config.layout == "normal" else layers[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 5, H, W).  Returns (B, high_channels[-1], h, w)."""
        return self.net(x)


class TriplaneTransformer(nn.Module):
    """E_t: merges both branches and lifts them to three planes."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size, f_size = config.token_size, config.f_channels[-1]
        self.skips_low = config.layout == "normal"
        merged = config.high_channels[-1] + f_size
        self.net = _convolutions(merged, config.merge_channels, nn.LeakyReLU, act_last=self.skips_low)
        self.pathembed = OverlapPatchEmbed(config.merge_channels[-1], size, config.patch_kernel)
        self.block = SegformerBlock(size, config.final_heads, 2)
        if self.skips_low:
            self.output_net = _convolutions(size // 4 + f_size, config.output_channels, nn.LeakyReLU)
        else:
            self.output_net = _convolutions(size // 4, config.output_channels, nn.LeakyReLU, config.upsample_after)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """high: (B, I, h, w).  low: (B, F, h, w).  Returns (B, 3*C, 2h, 2w); h, w in the "normal" layout."""
        # Merge both branches, then relate all places.
        tokens, height, width = self.pathembed(self.net(torch.cat([high, low], dim=1)))
        grid = to_grid(self.block(tokens, height, width), height, width)
        # Decode to the three planes.
        return self.output_net(torch.cat([grid, low], dim=1) if self.skips_low else grid)


def _convolutions(
    inputs: int,
    channels: Sequence[int],
    activation: type[nn.Module],
    upsample_after: int | None = None,
    act_last: bool = False,
) -> nn.Sequential:
    """3x3 convolutions with activations between; after number `upsample_after` the image doubles."""
    layers: list[nn.Module] = []
    for i, outputs in enumerate(channels):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1))
        if i < len(channels) - 1 or act_last:
            layers.append(activation())
        if i == upsample_after:
            layers.append(nn.UpsamplingBilinear2d(scale_factor=2))
        inputs = outputs
    return nn.Sequential(*layers)


def _initialise(module: nn.Module) -> None:
    """Keep the variance through many convolutions without normalisation; a residual branch starts small."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        with torch.no_grad():
            module.conv2.weight.mul_(0.3)
