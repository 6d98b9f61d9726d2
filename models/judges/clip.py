"""CLIP (Radford et al. 2021): similarity of a picture and a sentence, and the tokens of prompts.

The embedded CLIP is a small `transformers.CLIPModel`; the paper profile's is ViT-L/14. The editor's text encoder is the
text tower of the same model, as in Stable Diffusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.libraries import transformers

TEXT_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id"),
)


class Clip(nn.Module):
    """A CLIP model with its tokenizer and its picture preprocessing."""

    mean: Tensor
    std: Tensor

    MEAN = (0.48145466, 0.4578275, 0.40821073)
    STD = (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, model: transformers.CLIPModel, tokenizer: transformers.CLIPTokenizer) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.image_size = int(model.config.vision_config.image_size)
        self.register_buffer("mean", torch.tensor(self.MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.STD).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, folder: str | Path, revision: str | None = None) -> Self:
        """Load from a folder or hub id in transformers' layout."""
        model = transformers.CLIPModel.from_pretrained(folder, revision=revision, dtype=torch.float32)
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, revision=revision)
        return cls(model.eval(), tokenizer)

    def text_config(self) -> dict[str, Any]:
        """Sizes of the text transformer, JSON-ready, as `transformers.CLIPTextConfig` takes them."""
        values = self.model.config.text_config.to_dict()
        return {name: values[name] for name in TEXT_SIZES}

    def preprocess(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to the vision tower's input."""
        if images.shape[-1] != self.image_size or images.shape[-2] != self.image_size:
            images = nn.functional.interpolate(
                images,
                (self.image_size, self.image_size),
                mode="bicubic",
                antialias=True,
                align_corners=False,
            ).clamp(0, 1)
        return (images - self.mean) / self.std

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and mask, (B, T) with T the tower's full length."""
        length = int(self.model.config.text_config.max_position_embeddings)
        encoded = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return {name: encoded[name].to(self.mean.device) for name in ("input_ids", "attention_mask")}

    def prompt_ids(self, texts: Sequence[str]) -> Tensor:
        """Token ids and mask as one tensor (B, 2, T), for a text transformer that learns elsewhere."""
        encoded = self.tokenize(texts)
        return torch.stack([encoded["input_ids"], encoded["attention_mask"]], dim=1)

    def image_features(self, images: Tensor) -> Tensor:
        """(B, D) unit vectors of images (B, 3, H, W) in [0, 1]."""
        pooled = self.model.vision_model(pixel_values=self.preprocess(images)).pooler_output
        return nn.functional.normalize(self.model.visual_projection(pooled), dim=-1)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """(B, D) unit vectors."""
        pooled = self.model.text_model(**self.tokenize(texts)).pooler_output
        return nn.functional.normalize(self.model.text_projection(pooled), dim=-1)

    @torch.no_grad()
    def embed_images(self, images: np.ndarray) -> Tensor:
        """(B, D) unit vectors of pictures (B, H, W, 3) uint8."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.mean.device)
        return self.image_features(pixels.permute(0, 3, 1, 2).float() / 255.0)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(B, D) unit vectors of sentences."""
        return self.text_features(texts)

    @torch.no_grad()
    def text_tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the last hidden states (B, T, D), the tokens that editor and student attend to."""
        return self.model.text_model(**self.tokenize(texts)).last_hidden_state
