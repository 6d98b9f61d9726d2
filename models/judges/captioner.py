"""Words for a picture, where an editor takes words alone: BLIP, or the nearest of given captions by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from models.judges.clip import Clip
from models.libraries import transformers

MAX_TOKENS = 30  # of a caption


class Captioner(Protocol):
    """Writes what a picture shows."""

    def caption(self, picture: np.ndarray) -> str:
        """picture: (H, W, 3) uint8."""
        ...


class Retrieval:
    """Chooses among given captions."""

    def __init__(self, clip: Clip, captions: Sequence[str]) -> None:
        self.clip, self.captions = clip, list(captions)
        self._texts = clip.embed_texts(self.captions)

    def caption(self, picture: np.ndarray) -> str:
        """Return the caption that CLIP finds nearest to the picture (H, W, 3) uint8."""
        alike = self.clip.embed_images(picture[None]) @ self._texts.T
        return self.captions[int(alike[0].argmax())]


class Blip:
    """BLIP (Li et al. 2022)."""

    def __init__(self, folder: str | Path, device: str, revision: str | None) -> None:
        """Load from a folder or hub id in transformers' layout."""
        model = transformers.BlipForConditionalGeneration.from_pretrained(folder, revision=revision)
        self.model = model.eval().to(device)
        self.processor = transformers.BlipProcessor.from_pretrained(folder, revision=revision)

    @torch.no_grad()
    def caption(self, picture: np.ndarray) -> str:
        """picture: (H, W, 3) uint8."""
        inputs = self.processor(images=[Image.fromarray(picture)], return_tensors="pt").to(self.model.device)
        tokens = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS)
        return str(self.processor.batch_decode(tokens, skip_special_tokens=True)[0]).strip()
