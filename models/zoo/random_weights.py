"""The paper's networks at full size with random weights, in files as their authors publish them.

The loaders of the public files load these too: same layout, same keys, same shapes. Sizes are those of
`timbrooks/instruct-pix2pix` (Stable Diffusion 1.5 with four more input channels) and `openai/clip-vit-large-patch14`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from models.judges import lpips_alex
from models.judges.arcface import ArcFace
from models.libraries import diffusers, transformers
from models.three_d.live3d import PAPER_LT, Live3D
from models.three_d.mae import MaeConfig, MaeEncoder
from models.zoo.zoo import files_digest

Shapes = Mapping[str, tuple[int, ...]]

VOCABULARY = 49408  # tokens of CLIP
TEXT_TOWER = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
VISION_TOWER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
}
PIPELINE = {
    "feature_extractor": ("transformers", "CLIPImageProcessor"),
    "safety_checker": ("stable_diffusion", "StableDiffusionSafetyChecker"),
    "scheduler": ("diffusers", "EulerAncestralDiscreteScheduler"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}
DIFFUSERS_FILE, TRANSFORMERS_FILE = "diffusion_pytorch_model.safetensors", "model.safetensors"
START, END = "<|startoftext|>", "<|endoftext|>"
DRAWN = 8_388_593  # normal numbers drawn for a network; a prime, so that each row starts at another of them


def write_world(folder: Path, seed: int = 0) -> Path:
    """Write all networks of the world `paper` below `folder`. Returns the registry that lists them and their sha256."""
    writers: dict[str, tuple[str, Callable[[Path, torch.Generator], None]]] = {
        "editor": ("instruct-pix2pix", write_editor),
        "teacher": ("encoder_render_LT.pt", write_teacher),
        "clip": ("clip-vit-large-patch14", write_clip),
        "identity": ("model_ir_se50.pth", write_identity),
        "mae": ("mae_pretrain_vit_base.pth", write_mae),
        "lpips": ("alexnet-owt.pth", write_alexnet),
    }
    entries: dict[str, dict[str, Any]] = {"landmarks": {"path": None, "optional": True}}
    for number, (name, (file, write)) in enumerate(writers.items()):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, torch.Generator().manual_seed(seed + number))
        entries[name] = {"path": str(path), "sha256": files_digest(path)}
    # These are no larger than random ones would be.
    entries |= {
        "matting": {"path": "models/weights/photo/matting"},
        "face_api": {"path": "models/weights/photo/identity"},
    }
    entries["safety"] = entries["editor"]  # the checker is part of the same pipeline
    registry = folder / "models.yaml"
    registry.write_text(yaml.safe_dump({"paper": entries}), encoding="utf-8")
    return registry


def write_editor(folder: Path, generator: torch.Generator) -> None:
    """An InstructPix2Pix pipeline with its safety checker, in diffusers' layout."""
    folder.mkdir()
    index: dict[str, Any] = {"_class_name": "StableDiffusionInstructPix2PixPipeline", "requires_safety_checker": True}
    (folder / "model_index.json").write_text(json.dumps(index | PIPELINE, indent=1))
    for part, network in editor_networks().items():
        network.config_to(folder / part)
        _save(network, folder / part, generator)
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**SCHEDULER)
    scheduler.save_pretrained(folder / "scheduler")
    transformers.CLIPImageProcessor().save_pretrained(folder / "feature_extractor")
    write_tokenizer(folder / "tokenizer")


class Described:
    """Network without memory: its class name, its configuration, and the shapes of its public keys."""

    def __init__(self, network: Any, file: str, rename: Callable[[str], str] = str) -> None:
        self.file = file
        self.shapes: Shapes = {rename(key): tuple(value.shape) for key, value in network.state_dict().items()}
        self._network = network

    def config_to(self, folder: Path) -> None:
        """Write config.json as its library does."""
        save = getattr(self._network, "save_config", None) or self._network.config.save_pretrained
        save(folder)


def editor_networks() -> dict[str, Described]:
    """The networks of the pipeline, by folder."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    with torch.device("meta"):
        unet, vae = diffusers.UNet2DConditionModel(**UNET), diffusers.AutoencoderKL(**VAE)
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**TEXT_TOWER))
        checker = StableDiffusionSafetyChecker(_clip_config())
    return {
        "unet": Described(unet, DIFFUSERS_FILE),
        "vae": Described(vae, DIFFUSERS_FILE),
        # The public files wrap both towers once more.
        "text_encoder": Described(text, TRANSFORMERS_FILE, lambda key: f"text_model.{key}"),
        "safety_checker": Described(checker, TRANSFORMERS_FILE, lambda key: re.sub("^(vision_model.)", r"\1\1", key)),
    }


def clip_network() -> Described:
    """CLIP ViT-L/14."""
    with torch.device("meta"):
        return Described(transformers.CLIPModel(_clip_config()), TRANSFORMERS_FILE)


def _clip_config() -> transformers.CLIPConfig:
    return transformers.CLIPConfig(vision_config=VISION_TOWER, text_config=TEXT_TOWER, projection_dim=768)


def write_clip(folder: Path, generator: torch.Generator) -> None:
    """CLIP ViT-L/14 with a tokenizer, in transformers' layout."""
    network = clip_network()
    network.config_to(folder)
    _save(network, folder, generator)
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer with CLIP's number of tokens; its words are placeholders."""
    from tokenizers import pre_tokenizers

    folder.mkdir(exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    words = (f"word{number}</w>" for number in range(VOCABULARY - len(tokens) - 2))
    vocabulary = {token: number for number, token in enumerate([*tokens, *words, START, END])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    named = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_teacher(path: Path, generator: torch.Generator) -> None:
    """Live3D (LT) as its coach saves it, optimiser's state left out."""
    teacher = _built(lambda: Live3D(PAPER_LT), generator)
    parts = {"encoder_state_dict": teacher.encoder.state_dict(), "renderer_state_dict": teacher.renderer.state_dict()}
    torch.save({**parts, "step": 90000, "opts": {}}, path)


def write_identity(path: Path, generator: torch.Generator) -> None:
    """ArcFace's IR-SE-50."""
    torch.save(_built(ArcFace, generator).state_dict(), path)


def write_mae(path: Path, generator: torch.Generator) -> None:
    """The ViT-B/16 that was pretrained as a masked autoencoder."""
    torch.save({"model": _built(lambda: MaeEncoder(MaeConfig()), generator).state_dict()}, path)


def write_alexnet(path: Path, generator: torch.Generator) -> None:
    """AlexNet's convolutions; LPIPS reads no more of the file."""
    torch.save(dict(draw(lpips_alex.SHAPES, generator, torch.float32)), path)


def draw(shapes: Shapes, generator: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Draw weights that preserve variance; norms and biases have their initial values.

    A network's weights are cut from `DRAWN` normal numbers at shifting offsets: drawing a billion numbers would take
    longer than anything done with them here.
    """
    numbers = torch.randn(DRAWN, generator=generator).to(dtype)
    for key, shape in shapes.items():
        value = torch.empty(shape, dtype=dtype)
        if key.endswith(("embeds_weights", "norm.weight")) or (len(shape) == 1 and key.endswith(".weight")):
            value.fill_(1.0)
        elif len(shape) > 1:
            start = int(torch.randint(DRAWN, (), generator=generator))
            rest = value.view(-1)
            while len(rest):
                part = numbers[start : start + len(rest)]
                rest[: len(part)] = part
                rest, start = rest[len(part) :], 0
            value.mul_(value[0].numel() ** -0.5)
        else:
            value.zero_()
        yield key, value


def _save(network: Described, folder: Path, generator: torch.Generator) -> None:
    """Save in half precision: its readers cast to their own type, and the file is half as large."""
    save_file(dict(draw(network.shapes, generator, torch.float16)), folder / network.file, metadata={"format": "pt"})


def _built(build: Callable[[], nn.Module], generator: torch.Generator) -> Any:
    """Build one of our networks with its own initialisation, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        return build()
