"""Frozen networks beside a student: the encoders of its prompts, the detector that aligns portraits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.samples.encoding import encode_json

if TYPE_CHECKING:
    from models.faces.landmarks import LandmarkNet
    from models.judges.clip import Clip
    from models.three_d.mae import Mae

CLIP, MAE, LANDMARKS = "clip", "mae", "landmarks"  # folders of an export


class Companions(NamedTuple):
    """Frozen networks, on the CPU: each runs once for a prompt or a portrait."""

    clip: Clip
    mae: Mae
    landmarks: LandmarkNet | None  # None where no detector knows the faces: portraits then count as aligned


def find_companions(settings: Settings) -> Companions:
    """Return the networks that the registry names for the settings' world."""
    from models.zoo import zoo

    return Companions(zoo.load("clip", settings.world), zoo.load("mae", settings.world), find_detector(settings))


def find_detector(settings: Settings) -> LandmarkNet | None:
    """Return the landmark detector if it knows the faces: the embedded one knows procedural faces only."""
    from models.zoo import zoo

    return zoo.load("landmarks", settings.world) if settings.portraits.source == PROCEDURAL else None


def save_companions(companions: Companions, folder: Path) -> None:
    """Save each network in its folder: CLIP in transformers' layout, the others as safetensors with their sizes."""
    from safetensors.torch import save_file

    companions.clip.model.save_pretrained(folder / CLIP)
    companions.clip.tokenizer.save_pretrained(folder / CLIP)
    (folder / MAE).mkdir()
    encoder = companions.mae.encoder
    save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, folder / MAE / _WEIGHTS)
    (folder / MAE / _CONFIG).write_bytes(encode_json(encoder.config.to_dict()))
    if companions.landmarks is not None:
        (folder / LANDMARKS).mkdir()
        state = {name: value.contiguous() for name, value in companions.landmarks.state_dict().items()}
        save_file(state, folder / LANDMARKS / _WEIGHTS)


def load_companions(folder: Path) -> Companions:
    """Load the networks that `save_companions` wrote."""
    from safetensors.torch import load_file

    from models.faces.landmarks import LandmarkNet
    from models.judges.clip import Clip
    from models.three_d.mae import Mae

    config = json.loads((folder / MAE / _CONFIG).read_text(encoding="utf-8"))
    mae = Mae.from_state(config, load_file(folder / MAE / _WEIGHTS))
    detector = None
    if (folder / LANDMARKS / _WEIGHTS).is_file():
        detector = LandmarkNet()
        detector.load_state_dict(load_file(folder / LANDMARKS / _WEIGHTS))
        detector = detector.eval().requires_grad_(False)
    return Companions(Clip.load(folder / CLIP), mae, detector)


_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
