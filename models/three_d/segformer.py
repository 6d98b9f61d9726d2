"""Layers of SegFormer in Live3D's token branches: overlapping patches and efficient attention blocks."""

import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-5


class OverlapPatchEmbed(nn.Module):
    """Strided convolution to tokens (SegFormer, section 3.1)."""

    def __init__(self, inputs: int, token_size: int, kernel: int = 7, stride: int = 2) -> None:
        super().__init__()
        self.proj = nn.Conv2d(inputs, token_size, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(token_size, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, int, int]:
        """x: (B, I, H, W).  Returns tokens (B, h*w, D), h and w."""
        y = self.proj(x)
        return self.norm(y.flatten(2).transpose(1, 2)), y.shape[2], y.shape[3]


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a grid `reduction` times coarser (SegFormer, equation 2)."""

    def __init__(self, token_size: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(token_size, token_size, bias=False)
        self.kv = nn.Linear(token_size, 2 * token_size, bias=False)
        self.proj = nn.Linear(token_size, token_size)
        if reduction > 1:
            self.sr = nn.Conv2d(token_size, token_size, reduction, reduction)
            self.norm = nn.LayerNorm(token_size, eps=LAYER_NORM_EPS)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """tokens: (B, height*width, D).  Returns the same shape."""
        batch, count, size = tokens.shape
        coarse = tokens
        if self.reduction > 1:
            grid = self.sr(tokens.transpose(1, 2).reshape(batch, size, height, width))
            coarse = self.norm(grid.flatten(2).transpose(1, 2))
        query = self.q(tokens).view(batch, count, self.heads, -1).transpose(1, 2)
        key, value = self.kv(coarse).view(batch, coarse.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, size))


class DepthwiseConv(nn.Module):
    """The 3x3 depthwise convolution that gives SegFormer's tokens their sense of place; a module for its key name."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """tokens: (B, height*width, D).  Returns the same shape."""
        grid = tokens.transpose(1, 2).contiguous().view(tokens.shape[0], -1, height, width)
        return self.dwconv(grid).flatten(2).transpose(1, 2)


class MixMlp(nn.Module):
    """SegFormer's feed-forward network (equation 3)."""

    def __init__(self, token_size: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(token_size, hidden)
        self.dwconv = DepthwiseConv(hidden)
        self.fc2 = nn.Linear(hidden, token_size)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """tokens: (B, height*width, D).  Returns the same shape."""
        return self.fc2(F.gelu(self.dwconv(self.fc1(tokens), height, width)))


class SegformerBlock(nn.Module):
    """Pre-norm attention and feed-forward network, each with a residual."""

    def __init__(self, token_size: int, heads: int, reduction: int, mlp_ratio: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(token_size, eps=LAYER_NORM_EPS)
        self.attn = EfficientAttention(token_size, heads, reduction)
        self.norm2 = nn.LayerNorm(token_size, eps=LAYER_NORM_EPS)
        self.mlp = MixMlp(token_size, mlp_ratio * token_size)

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """tokens: (B, height*width, D).  Returns the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens), height, width)
        return tokens + self.mlp(self.norm2(tokens), height, width)


def to_grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """tokens (B, height*width, D) as an image of twice the size: (B, D/4, 2*height, 2*width)."""
    # Contiguous: a channels-last view would pass through every later convolution, which is slower on a CPU.
    grid = tokens.transpose(1, 2).contiguous().view(tokens.shape[0], -1, height, width)
    return F.pixel_shuffle(grid, 2)
