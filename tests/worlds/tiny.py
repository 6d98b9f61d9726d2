"""The real classes of editor and CLIP with untrained weights, small enough to make in a test."""

import numpy as np
import torch
from tokenizers import pre_tokenizers

from models.editing.editor import Editor
from models.judges.clip import Clip
from models.libraries import diffusers, transformers

MAX_TOKENS = 16
START, END = "<|startoftext|>", "<|endoftext|>"


def tiny_clip() -> Clip:
    """A CLIP of one layer; its tokenizer knows single bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), START, END]
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        model_max_length=MAX_TOKENS,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
    )
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    text = tower | ends | {"vocab_size": len(tokens), "max_position_embeddings": MAX_TOKENS}
    config = transformers.CLIPConfig(
        text_config=text, vision_config=tower | {"image_size": 64, "patch_size": 16}, projection_dim=16
    )
    torch.manual_seed(0)
    return Clip(transformers.CLIPModel(config), tokenizer).eval()


def tiny_editor(clip: Clip) -> Editor:
    """An InstructPix2Pix pipeline whose latents are a quarter of the picture's size."""
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        mid_block_add_attention=False,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        attention_head_dim=4,
        norm_num_groups=4,
        cross_attention_dim=32,
    )
    text = transformers.CLIPTextModel(clip.model.config.text_config)
    text.load_state_dict(clip.model.text_model.state_dict())
    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=clip.tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return Editor(pipeline).eval()


def noise_picture(seed: int, size: int = 64) -> np.ndarray:
    """(size, size, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
