"""BLIP by its own library's files: sizes, range of the picture, and words without marks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.judges.captioner import MAX_TOKENS, Blip
from models.libraries import transformers

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "zombie", "clown", "neon")
LAYERS = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BLIP of random weights in the layout of the published one."""
    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    marks = {"pad_token_id": 0, "bos_token_id": len(WORDS), "eos_token_id": 2, "sep_token_id": 3}
    text = transformers.BlipTextConfig(
        vocab_size=len(WORDS) + 1, encoder_hidden_size=16, projection_dim=16, **LAYERS, **marks
    )
    vision = transformers.BlipVisionConfig(image_size=32, patch_size=16, projection_dim=16, **LAYERS)
    config = transformers.BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    transformers.BlipForConditionalGeneration(config).save_pretrained(tmp_path)
    pictures = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    transformers.BlipProcessor(pictures, transformers.BertTokenizer(str(tmp_path / "vocab.txt"))).save_pretrained(
        tmp_path
    )
    return tmp_path


def test_blip_reads_a_picture_of_any_size_in_clips_range_and_writes_plain_words(folder: Path) -> None:
    blip = Blip(folder, "cpu", None)
    seen: list[torch.Tensor] = []
    blip.model.vision_model.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["pixel_values"]), with_kwargs=True
    )
    words = blip.caption(np.full((64, 48, 3), 255, np.uint8)).split()
    assert set(words) <= set(WORDS[5:]) | {"."}
    assert 0 < len(words) <= MAX_TOKENS
    white = (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor([0.26862954, 0.26130258, 0.27577711])
    assert seen[0].shape == (1, 3, 32, 32)
    assert torch.allclose(seen[0].mean(dim=(0, 2, 3)), white, atol=1e-4)
    assert not blip.model.training
