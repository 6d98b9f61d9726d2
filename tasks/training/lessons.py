"""Samples made during training, in the form of the teacher's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data_catalog.config.settings import TeachSettings
from data_catalog.samples.encoding import encode_array, encode_json, encode_png
from data_catalog.samples.shards import Sample
from models.pixels import to_bytes
from models.three_d.live3d import Render
from tasks.teach import Lesson, encode_lesson
from tasks.training.data import SampleRef

Renderer = Callable[[Tensor, Tensor], Render]


def look(triplane: Tensor, render: Renderer, camera: np.ndarray, view_cameras: np.ndarray) -> Lesson:
    """Render a lesson from the sample's own camera (25,) and from view_cameras (n, 25).

    triplane: (1, 3*C, h, w).
    """
    cameras = torch.from_numpy(np.concatenate([camera[None], view_cameras])).to(triplane.device)
    with torch.no_grad():
        seen = render(triplane.expand(len(cameras), -1, -1, -1), cameras)
    pictures, depths = to_bytes(seen.image), seen.depth[:, 0].float().cpu().numpy()
    return Lesson(triplane[0].float().cpu().numpy(), pictures[0], pictures[1:], view_cameras, depths, {})


def make_sample(
    sample: SampleRef, portrait: np.ndarray, pseudo_label: np.ndarray, lesson: Lesson, settings: TeachSettings
) -> Sample:
    """The fields of `sample`, as a shard holds them.  portrait, pseudo_label: (H, W, 3) uint8."""
    shown = {"portrait.png": encode_png(portrait), "pseudo_label.png": encode_png(pseudo_label)}
    rest = {"camera.npy": encode_array(sample.camera), "meta.json": encode_json({"key": sample.key})}
    return Sample(sample.key, shown | rest | encode_lesson(lesson, settings))
