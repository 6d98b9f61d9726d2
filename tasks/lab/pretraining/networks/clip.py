"""The embedded CLIP: pictures of looks against sentences about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn

from models.judges.clip import Clip
from models.libraries import transformers
from tasks.lab.pretraining import captions
from tasks.lab.pretraining.loop import Draw, Recipe, batch_of
from tasks.lab.pretraining.pictures import LOOKS, Pictures

BATCH = 66
MAX_TOKENS = 24
VOCABULARY = 900
START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(folder: Path) -> transformers.CLIPTokenizer:
    """Byte-level BPE over the captions, in CLIP's form: every byte also ends words, so any text can be written."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(captions.corpus(), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet)]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokens += [a + b for a, b in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    folder.mkdir(parents=True, exist_ok=True)
    made = transformers.CLIPTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS, bos_token=START, eos_token=END, pad_token=END,
        unk_token=END,
    )  # fmt: skip
    made.save_pretrained(folder)
    return transformers.CLIPTokenizer.from_pretrained(folder)


def build(weights: Path) -> nn.Module:
    tokenizer = train_tokenizer(weights / "clip")
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": MAX_TOKENS, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
        "image_size": 64, "patch_size": 4,  # with patches of 8 it does not see pointed ears
    }  # fmt: skip
    config = transformers.CLIPConfig(
        text_config=text, vision_config=vision, projection_dim=64, logit_scale_init_value=2.3
    )
    return Clip(transformers.CLIPModel(config), tokenizer)


def loss(network: nn.Module, pictures: Pictures, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
    """Symmetric contrastive loss; every pair of the same look is a positive, not the diagonal alone."""
    assert isinstance(network, Clip)
    people = batch_of(pictures, draw, BATCH)
    looks = np.arange(BATCH) % len(LOOKS)
    images = pictures.crops[people, looks]
    from_side = draw.rng.random(BATCH) < 0.3  # some from the teacher's cameras, so that views can be scored
    slot, view = draw.rng.integers(3, size=BATCH), draw.rng.integers(3, size=BATCH)
    images = np.where(from_side[:, None, None, None], pictures.views[people, slot, view], images)
    looks = np.where(from_side, pictures.looks[people, slot], looks)
    describe = (captions.caption, captions.instruction)
    texts = [describe[int(draw.rng.integers(2))](LOOKS[look], draw.rng) for look in looks]
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    pixels = (pixels + 0.02 * torch.randn(pixels.shape, generator=draw.torch_rng)).clamp(0, 1)
    image, text = network.image_features(pixels).float(), network.text_features(texts).float()
    logits = network.model.logit_scale.exp().clamp(max=30.0) * image @ text.T
    same = torch.from_numpy(looks[:, None] == looks[None]).float()
    target = same / same.sum(1, keepdim=True)
    value = (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits.T, target)) / 2
    correct = (same.gather(1, logits.argmax(1, keepdim=True)) > 0).float().mean()
    return value, {"right": correct}


def save(network: nn.Module, folder: Path) -> None:
    assert isinstance(network, Clip)
    network.model.half().save_pretrained(folder / "clip")


RECIPE = Recipe(
    "clip", steps=1500, lr=2e-3, build=build, loss=loss, save=save, bfloat16=True, ema=0.99,
    optimizer="muon",
)  # fmt: skip
