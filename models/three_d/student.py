"""The student: Live3D's encoder with the prompt between its high branch and its triplane transformer (3DPE).

Four parts keep the paper's names: E_low (`encoder`, `decoder`, `F_encoder`) and E_high (`EHigh_encoder`) see
the portrait and stay frozen, like the renderer; E_p (`Ref_encoder`) reads the prompt and E_t
(`Final_encoder`) lifts the result to a triplane, and both learn.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.libraries import transformers
from models.three_d import live3d
from models.three_d.encoder import Live3DEncoder
from models.three_d.live3d import Live3D, Live3DConfig, TriplaneModel
from models.three_d.mae import MaeConfig, MaeEncoder
from models.three_d.segformer import OverlapPatchEmbed, to_grid

PromptKind = Literal["text", "image"]


@dataclass(frozen=True)
class StudentConfig:
    """Sizes of the student; the defaults are 3DPE's."""

    live3d: Live3DConfig = field(default_factory=Live3DConfig)
    pre_channels: int = 96
    query_size: int = 768
    query_kernel: int = 7
    query_stride: int = 4
    text_token_size: int = 768  # CLIP's hidden states
    image_token_size: int = 768  # the MAE's tokens
    residual: bool = False  # True: the prompt adds to E_high's features instead of replacing them
    # E_p's own encoders, which learn with it; None: the tokens come from a separate frozen model.
    mae: MaeConfig | None = field(default_factory=MaeConfig)
    text: dict[str, Any] | None = None  # CLIP's text transformer: values of transformers.CLIPTextConfig

    @property
    def own_encoders(self) -> tuple[PromptKind, ...]:
        """The kinds of prompt that E_p's own encoders read."""
        encoders: dict[PromptKind, object] = {"text": self.text, "image": self.mae}
        return tuple(kind for kind, encoder in encoders.items() if encoder is not None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "StudentConfig":
        """Invert `to_dict`, also after a round trip through JSON."""
        mae = values["mae"]
        parts = {"live3d": Live3DConfig.from_dict(values["live3d"]), "mae": mae and MaeConfig(**mae)}
        return cls(**{**values, **parts})


PAPER = StudentConfig()
EMBEDDED = StudentConfig(
    live3d=live3d.EMBEDDED,
    pre_channels=64,
    query_size=256,
    query_kernel=3,
    text_token_size=96,
    image_token_size=96,
    residual=True,
    mae=None,
)


class Features(NamedTuple):
    """Features of a portrait from the frozen branches; worth caching in training."""

    low: Tensor  # (B, F, h, w)
    high: Tensor  # (B, I, h, w)


class PromptAttention(nn.Module):
    """E_p: every place of the high features looks up the prompt (3DPE, equation 2).

    Its own encoders, where it has them, turn a prompt into tokens: an MAE for pictures, CLIP's text transformer for
    sentences (3DPE, section 3.3).

    At paper size the tokens are keys and values as they are, and their mixture replaces the features. With
    `residual` the mixture joins the queries and is added to the features through a projection that starts at
    zero, so that a student begins as its teacher; a few minutes of training suffice then.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        high, size = config.live3d.encoder.high_channels[-1], config.query_size
        self.residual = config.residual
        self.mae_encoder = None if config.mae is None else MaeEncoder(config.mae)
        text = None if config.text is None else transformers.CLIPTextConfig(**config.text)
        self.text_encoder = None if text is None else transformers.CLIPTextModel(text)
        self.pre_conv = nn.Conv2d(high, config.pre_channels, 3, padding=1)
        self.patch_emb = OverlapPatchEmbed(config.pre_channels, size, config.query_kernel, config.query_stride)
        self.proj_tail = nn.Conv2d(size // 4, 4 * high, 1, bias=False)
        self.project = nn.ModuleDict(
            {
                "text": _token_projection(config.text_token_size, size),
                "image": _token_projection(config.image_token_size, size),
            }
        )
        if self.residual:
            nn.init.zeros_(self.proj_tail.weight)

    def read(self, prompts: Tensor, prompt_kind: PromptKind) -> Tensor:
        """Return the tokens (B, T, D) of prompts.

        With an encoder of its own for their kind, pictures are (B, 3, S, S), see `mae.normalise`, and sentences
        (B, 2, T) int64: ids and mask by CLIP's tokenizer. Without one, prompts are tokens already.
        """
        if prompt_kind == "image":
            return prompts if self.mae_encoder is None else cast(Tensor, self.mae_encoder(prompts))
        if self.text_encoder is None:
            return prompts
        ids, mask = prompts.unbind(1)
        return cast(Tensor, self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state)

    def of_one_kind(self) -> list[nn.Module]:
        """Return the parts that see prompts of one kind only."""
        own = [self.mae_encoder, self.text_encoder]
        return [*self.project.values(), *(each for each in own if each is not None)]

    def forward(self, high: Tensor, prompt_tokens: Tensor, prompt_kind: PromptKind) -> Tensor:
        """high: (B, I, h, w).  prompt_tokens: (B, T, D), of `read`.  Returns (B, I, h, w)."""
        return self.mix(high, self.project[prompt_kind](prompt_tokens))

    def mix(self, high: Tensor, tokens: Tensor) -> Tensor:
        """high: (B, I, h, w).  tokens: (B, T, query_size), projected.  Returns (B, I, h, w)."""
        # Look up the prompt at every place of the features.
        query, height, width = self.patch_emb(self.pre_conv(high))
        tokens = tokens[:, None]  # one head
        mixture = F.scaled_dot_product_attention(query[:, None], tokens, tokens)[:, 0]
        if not self.residual:
            return F.pixel_shuffle(self.proj_tail(to_grid(mixture, height, width)), 2)
        grid = to_grid(F.gelu(query + mixture), height, width)
        return high + F.pixel_shuffle(self.proj_tail(grid), 2)


class EditingEncoder(Live3DEncoder):
    """Live3D's encoder with E_p in it; the key names of the public 3DPE checkpoint."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config.live3d.encoder)
        self.Ref_encoder = PromptAttention(config)


class Student(TriplaneModel):
    """Portrait and prompt to an edited triplane, in one pass (3DPE, section 3.2)."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__(config.live3d.renderer)
        self.config = config
        self.encoder = EditingEncoder(config)
        self.requires_grad_(False)
        for module in self._learning():
            module.requires_grad_(True)
        if self.encoder.Ref_encoder.mae_encoder is not None:
            self.encoder.Ref_encoder.mae_encoder.pos_embed.requires_grad_(False)

    @classmethod
    def from_teacher(cls, teacher: Live3D, config: StudentConfig = EMBEDDED) -> Self:
        """A student that starts with the teacher's weights and sizes; its E_p is new."""
        student = cls(dataclasses.replace(config, live3d=teacher.config))
        missing, unexpected = student.encoder.load_state_dict(teacher.encoder.state_dict(), strict=False)
        if unexpected or not all(key.startswith("Ref_encoder.") for key in missing):
            raise ValueError(f"the teacher has other weights: missing {missing}, unexpected {unexpected}")
        student.renderer.load_state_dict(teacher.renderer.state_dict())
        return student

    def features(self, images: Tensor) -> Features:
        """Return the features of the frozen branches, without gradients.  images: (B, 3, H, W) in [-1, 1]."""
        with torch.no_grad():
            return Features(*self.encoder.branches(images))

    def read(self, prompts: Tensor, prompt_kind: PromptKind) -> Tensor:
        """Return the tokens (B, T, D) of prompts, see `PromptAttention.read`."""
        return self.encoder.Ref_encoder.read(prompts, prompt_kind)

    def edit(self, features: Features, prompt_tokens: Tensor, prompt_kind: PromptKind) -> Tensor:
        """prompt_tokens: (B, T, D), of `read`.  Returns a triplane (B, 3*C, h, w)."""
        return self.lift(self.attend(features.high, prompt_tokens, prompt_kind), features.low)

    def attend(self, high: Tensor, prompt_tokens: Tensor, prompt_kind: PromptKind) -> Tensor:
        """E_p alone.  high: (B, I, h, w).  prompt_tokens: (B, T, D).  Returns (B, I, h, w)."""
        return self.encoder.Ref_encoder(high, prompt_tokens, prompt_kind)

    def lift(self, high: Tensor, low: Tensor) -> Tensor:
        """E_t alone.  high: (B, I, h, w), of `attend`.  low: (B, F, h, w).  Returns a triplane (B, 3*C, h, w)."""
        return self.encoder.Final_encoder(high, low)

    def encode(self, images: Tensor, prompt_tokens: Tensor, prompt_kind: PromptKind) -> Tensor:
        """images: (B, 3, H, W) in [-1, 1].  prompt_tokens: (B, T, D).  Returns a triplane (B, 3*C, h, w)."""
        return self.edit(self.features(images), prompt_tokens, prompt_kind)

    def train(self, mode: bool = True) -> Self:
        """Switch the learning parts alone. Frozen parts stay in evaluation mode: dropout would blur their features."""
        super().train(False)
        for module in self._learning():
            module.train(mode)
        self.training = mode
        return self

    def _learning(self) -> tuple[nn.Module, nn.Module]:
        return self.encoder.Ref_encoder, self.encoder.Final_encoder


def _token_projection(inputs: int, outputs: int) -> nn.Module:
    """Return the identity where the sizes agree, as at paper size; otherwise a linear map of normalised tokens."""
    if inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs))
