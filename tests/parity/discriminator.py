"""StyleGAN2's residual discriminator on two pictures and a camera, as EG3D and 3DPE train with it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.camera import LABEL_SIZE
from models.three_d.eg3d import normalise_second_moment
from models.three_d.stylegan import (
    LEAKY_GAIN,
    LEAKY_SLOPE,
    FullyConnected,
    filter_image,
    resampling_filter,
)

FEATURES = 512
CONV_CLAMP = 256.0
GROUP_SIZE = 4  # samples compared by the minibatch standard deviation


class DownConv(nn.Module):
    """Equalised convolution, with low pass and stride 2 when `down`; linear and without bias for a skip."""

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, skip: bool = False) -> None:
        super().__init__()
        self.down, self.skip = down, skip
        self.weight_gain = 1.0 / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = None if skip else nn.Parameter(torch.zeros(outputs))
        self.register_buffer("resample_filter", resampling_filter())

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """x: (B, I, H, W).  Returns (B, O, H, W), or half the size."""
        size = self.weight.shape[-1]
        weight = self.weight * self.weight_gain
        if not self.down:
            y = F.conv2d(x, weight, padding=size // 2)
        else:
            pad = 1 + size // 2
            y = F.conv2d(filter_image(x, self.resample_filter, (pad, pad, pad, pad)), weight, stride=2)
        if self.bias is None:
            return y * gain
        y = F.leaky_relu(y + self.bias[:, None, None], LEAKY_SLOPE) * (LEAKY_GAIN * gain)
        return y.clamp(-CONV_CLAMP * gain, CONV_CLAMP * gain)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size; the first one also reads the pictures."""

    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, image_channels: int = 0) -> None:
        super().__init__()
        self.fromrgb = DownConv(image_channels, inputs, 1) if image_channels else None
        self.conv0 = DownConv(inputs, inputs, 3)
        self.conv1 = DownConv(inputs, outputs, 3, down=True)
        self.skip = DownConv(inputs, outputs, 1, down=True, skip=True)
        self.register_buffer("resample_filter", resampling_filter())

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, I, H, W), or pictures for the first block.  Returns (B, O, H/2, W/2)."""
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        half = math.sqrt(0.5)
        return self.skip(x, half) + self.conv1(self.conv0(x), half)


class Epilogue(nn.Module):
    """The 4x4 end: minibatch deviation, then the product with the camera's embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = DownConv(FEATURES + 1, FEATURES, 3)
        self.fc = FullyConnected(FEATURES * 16, FEATURES, leaky=True)
        self.out = FullyConnected(FEATURES, FEATURES)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x: (B, 512, 4, 4).  condition: (B, 512).  Returns logits (B, 1)."""
        x = self.conv(torch.cat([x, _deviation(x)], dim=1))
        x = self.out(self.fc(x.flatten(1)))
        return (x * condition).sum(dim=1, keepdim=True) / math.sqrt(FEATURES)


class ConditionMapping(nn.Module):
    """The camera label to an embedding; StyleGAN2's mapping without noise."""

    def __init__(self, layers: int = 8) -> None:
        super().__init__()
        self.layers = layers
        self.embed = FullyConnected(LABEL_SIZE, FEATURES)
        for i in range(layers):
            self.add_module(f"fc{i}", FullyConnected(FEATURES, FEATURES, leaky=True, lr_multiplier=0.01))

    def forward(self, label: Tensor) -> Tensor:
        """label: (B, 25).  Returns (B, 512)."""
        x = normalise_second_moment(self.embed(label))
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


class Discriminator(nn.Module):
    """Judge whether `image` is a real edit in the look of `reference`, seen from this camera (3DPE, section 3.3)."""

    resample_filter: Tensor

    def __init__(self, resolution: int = 512) -> None:
        super().__init__()
        self.resolutions = [2**i for i in range(int(math.log2(resolution)), 2, -1)]
        for i, size in enumerate(self.resolutions):
            channels = [min(32768 // s, FEATURES) for s in (size, size // 2)]
            self.add_module(f"b{size}", DiscriminatorBlock(channels[0], channels[1], 0 if i else 6))
        self.b4 = Epilogue()
        self.mapping = ConditionMapping()
        self.register_buffer("resample_filter", resampling_filter())

    def forward(self, image: Tensor, reference: Tensor, label: Tensor) -> Tensor:
        """image, reference: (B, 3, H, H) in [-1, 1].  label: (B, 25).  Returns logits (B, 1)."""
        x = torch.cat([image, reference], dim=1)
        for size in self.resolutions:
            x = self.get_submodule(f"b{size}")(x)
        return self.b4(x, self.mapping(label))


def _deviation(x: Tensor) -> Tensor:
    """Append the deviation between the samples of a group as a channel: (B, C, H, W) to (B, 1, H, W)."""
    batch, channels, height, width = x.shape
    group = min(GROUP_SIZE, batch)
    grouped = x.reshape(group, batch // group, channels, height, width)
    variance = (grouped - grouped.mean(dim=0)).square().mean(dim=0)
    deviation = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return deviation.reshape(-1, 1, 1, 1).repeat(group, 1, height, width)
