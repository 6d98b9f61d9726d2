"""StyleGAN2 layers with the key names of the public checkpoints (Karras et al. 2020)."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NoiseMode = Literal["none", "const", "random"]
LEAKY_SLOPE = 0.2
LEAKY_GAIN = math.sqrt(2.0)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: stored weights have unit variance (StyleGAN2; Karras et al. 2018)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        leaky: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.leaky, self.lr_multiplier = leaky, lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init / lr_multiplier))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., inputs).  Returns (..., outputs)."""
        y = F.linear(x, *self.scaled())
        return F.leaky_relu(y, LEAKY_SLOPE) * LEAKY_GAIN if self.leaky else y

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Weight (outputs, inputs) and bias (outputs,) as they act."""
        return self.weight * self.weight_gain, self.bias * self.lr_multiplier


def resampling_filter() -> Tensor:
    """The (4, 4) binomial low pass of StyleGAN2, sum 1."""
    row = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = row[:, None] * row[None, :]
    return kernel / kernel.sum()


def filter_image(x: Tensor, kernel: Tensor, padding: tuple[int, int, int, int], gain: float = 1.0) -> Tensor:
    """Low-pass every channel of x (B, C, H, W) with the symmetric kernel (4, 4); padding left, right, top, bottom."""
    channels = x.shape[1]
    weight = (kernel * gain).to(x.dtype).expand(channels, 1, 4, 4)
    return F.conv2d(F.pad(x, padding), weight, groups=channels)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """x: (B, C, H, W).  Returns (B, C, 2H, 2W): zeros inserted, then low-passed."""
    channels = x.shape[1]
    weight = (4.0 * kernel).to(x.dtype).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


def modulated_conv(
    x: Tensor, weight: Tensor, styles: Tensor, kernel: Tensor | None = None, demodulate: bool = True
) -> Tensor:
    """Convolution whose input channels are scaled per sample (StyleGAN2, equations 1 and 3).

    x: (B, I, H, W).  weight: (O, I, k, k).  styles: (B, I), or (1, I) for a batch that shares one style,
    which then is one ordinary convolution.  With `kernel` the result is twice as large.
    """
    if len(styles) > 1:  # scale the input in the weights' place: grouped convolutions cost twice as much on a CPU
        y = _convolve(x * styles[:, :, None, None], weight, kernel)
        if not demodulate:
            return y
        norms = styles.square() @ weight.square().sum(dim=(2, 3)).T + 1e-8
        return y * norms.rsqrt()[:, :, None, None]
    modulated = weight * styles[0, :, None, None]
    if demodulate:
        modulated = modulated * (modulated.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()
    return _convolve(x, modulated, kernel)


def _convolve(x: Tensor, weight: Tensor, kernel: Tensor | None) -> Tensor:
    if kernel is None:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return filter_image(y, kernel, (1, 1, 1, 1), gain=4.0)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; `conv_clamp` bounds the output."""

    resample_filter: Tensor
    noise_const: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_size: int,
        resolution: int,
        up: bool,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.resolution, self.conv_clamp = up, resolution, conv_clamp
        self.affine = FullyConnected(w_size, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("resample_filter", resampling_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise_mode: NoiseMode, generator: torch.Generator | None = None) -> Tensor:
        """x: (B, I, H, W).  w: (B, w_size), or (1, w_size) for the whole batch. Returns (B, O, resolution^2)."""
        y = modulated_conv(x, self.weight, self.affine(w), self.resample_filter if self.up else None)
        if noise_mode == "const":
            y = y + self.noise_const * self.noise_strength
        elif noise_mode == "random":
            noise = torch.randn(len(y), 1, *y.shape[2:], generator=generator, device=y.device)
            y = y + noise * self.noise_strength
        y = F.leaky_relu(y + self.bias[:, None, None], LEAKY_SLOPE) * LEAKY_GAIN
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class ToImage(nn.Module):
    """1x1 modulated convolution without demodulation to the channels of the skip image."""

    def __init__(self, inputs: int, outputs: int, w_size: int, conv_clamp: float | None = None) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.weight_gain = 1.0 / math.sqrt(inputs)
        self.affine = FullyConnected(w_size, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: (B, I, H, W).  w as in `SynthesisLayer`.  Returns (B, O, H, W)."""
        styles = self.affine(w) * self.weight_gain
        y = modulated_conv(x, self.weight, styles, demodulate=False) + self.bias[:, None, None]
        return y if self.conv_clamp is None else y.clamp(-self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """Synthesis block of one resolution: two layers and a skip image.

    The first block (inputs 0) starts from a learned constant.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_size: int,
        resolution: int,
        image_channels: int,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        if inputs == 0:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_size, resolution, up=True, conv_clamp=conv_clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_size, resolution, up=False, conv_clamp=conv_clamp)
        self.torgb = ToImage(outputs, image_channels, w_size, conv_clamp)
        self.register_buffer("resample_filter", resampling_filter())

    @property
    def layers(self) -> int:
        """Convolutions, without the one to the image."""
        return 1 if self.inputs == 0 else 2

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        noise_mode: NoiseMode = "none",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x: (B, I, H, W).  image: (B, K, H, W).  ws: (B or 1, layers + 1, w_size). Returns both at the double size."""
        w = iter(ws.unbind(dim=1))
        if self.inputs == 0:
            x = self.const.expand(len(ws), *self.const.shape)
        else:
            assert x is not None
            x = self.conv0(x, next(w), noise_mode, generator)
        x = self.conv1(x, next(w), noise_mode, generator)
        skip = self.torgb(x, next(w))
        return x, skip if image is None else upsample(image, self.resample_filter) + skip
