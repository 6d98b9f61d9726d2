"""Published networks: their files, their keys, and our networks filled with them.

Every loader is strict: exactly the keys and shapes of the published architecture, or a WeightsError that names the
difference. Optimisers, discriminators and options in the same files are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from models.checkpoints import State, check_state, load_converted, read_checkpoint, section
from models.judges import lpips_alex
from models.judges.arcface import ArcFace
from models.judges.perceptual import Perceptual
from models.three_d.eg3d import PAPER as PAPER_GENERATOR
from models.three_d.eg3d import Generator, GeneratorConfig
from models.three_d.live3d import PAPER_LT, PAPER_NORMAL, Live3D, Live3DConfig
from models.three_d.mae import Mae, MaeConfig, MaeEncoder
from models.three_d.student import PAPER, Student, StudentConfig

Network = TypeVar("Network", bound=nn.Module)

NORMAL_ONLY = "F_encoder.blocks.4."  # the fifth block of E_low, which LT does not have
# Parts of Live3D and 3DPE files, by the names of our networks.
PARTS = {"encoder": "encoder_state_dict", "renderer": "renderer_state_dict"}


def load_live3d(path: Path, lt: Live3DConfig = PAPER_LT, normal: Live3DConfig = PAPER_NORMAL) -> Live3D:
    """Load Live3D's `encoder_render*.pt`. Only its keys tell which of the two variants it is."""

    def choose(state: State) -> Live3DConfig:
        return normal if any(key.startswith(f"encoder.{NORMAL_ONLY}") for key in state) else lt

    def read(path: Path) -> State:
        state = _read_parts(path)
        variant = "LT" if choose(state) is lt else "Normal"
        check_state(state, _shapes(lambda: Live3D(choose(state))), f"Live3D ({variant})", path)
        return state

    state = load_converted(path, read)
    return _filled(lambda: Live3D(choose(state)), state).requires_grad_(False)


def load_student(path: Path, config: StudentConfig = PAPER) -> Student:
    """3DPE's `3dpe.pt`: encoder with its reference branch and MAE, and the renderer."""

    def read(path: Path) -> State:
        state = _read_parts(path)
        check_state(state, _shapes(lambda: Student(config)), "3DPE's student", path)
        return state

    return _filled(lambda: Student(config), load_converted(path, read))


def load_eg3d(path: Path, config: GeneratorConfig = PAPER_GENERATOR) -> Generator:
    """EG3D's `ffhqrebalanced512-128.pth`: a state dict of the generator, bare or under `G_ema`.

    The published pickle holds code beside the weights; EG3D's own scripts save its state dict as this file.
    """

    def read(path: Path) -> State:
        content = read_checkpoint(path)
        state = section(content, "G_ema", path) if "G_ema" in content else dict(content)
        check_state(state, _shapes(lambda: Generator(config)), "EG3D's generator", path)
        return state

    return _filled(lambda: Generator(config), load_converted(path, read)).requires_grad_(False)


def load_mae(path: Path, config: MaeConfig | None = None) -> Mae:
    """Load the encoder of `mae_pretrain_vit_base.pth`; a decoder in the file is ignored."""
    sizes = config or MaeConfig()

    def read(path: Path) -> State:
        content = read_checkpoint(path)
        state = section(content, "model", path) if "model" in content else dict(content)
        own = {key: value for key, value in state.items() if not key.startswith(("decoder", "mask_token"))}
        check_state(own, _shapes(lambda: MaeEncoder(sizes)), "a ViT-MAE encoder", path)
        return own

    return Mae.from_state(sizes.to_dict(), load_converted(path, read))


def load_arcface(path: Path) -> ArcFace:
    """ArcFace's IR-SE-50, `model_ir_se50.pth`; the counters of its norms, which old files lack, are ignored."""

    def learned(state: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}

    def read(path: Path) -> State:
        state = learned(read_checkpoint(path))
        check_state(state, learned(_shapes(ArcFace)), "ArcFace's IR-SE-50", path)
        return state

    return ArcFace.from_state(load_converted(path, read))


def load_lpips(path: Path) -> Perceptual:
    """LPIPS on AlexNet, `alexnet-owt-7be5be79.pth`; its classifier is ignored."""

    def read(path: Path) -> State:
        state = {key: value for key, value in read_checkpoint(path).items() if not key.startswith("classifier.")}
        check_state(state, lpips_alex.SHAPES, "AlexNet's convolutions", path)
        return state

    return lpips_alex.from_state(load_converted(path, read))


def _read_parts(path: Path) -> State:
    content = read_checkpoint(path)
    if path.suffix == ".safetensors":
        return content
    return {
        f"{part}.{key}": value for part, name in PARTS.items() for key, value in section(content, name, path).items()
    }


def _shapes(build: Callable[[], nn.Module]) -> Mapping[str, tuple[int, ...]]:
    """Keys and shapes of a network, built without allocating it."""
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in build().state_dict().items()}


def _filled(build: Callable[[], Network], state: State) -> Network:
    """The network in evaluation mode; its own initialisation is skipped."""
    with torch.device("meta"):
        network = build()
    # Buffers outside the state dict would stay without values on the meta device.
    kept = set(network.state_dict())
    if not all(name in kept for name, _ in network.named_buffers()):
        raise ValueError("a buffer that no file holds")
    network.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return network.eval()
