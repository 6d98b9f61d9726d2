"""Samples that adapting makes for itself: what a network shows of a triplane, in the form of the teacher's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from data_catalog.encoding import encode_array, encode_json, encode_png
from data_catalog.settings import TeachSettings
from data_catalog.shards import Sample
from models.live3d import Render
from models.pixels import to_bytes
from tasks.teach import Lesson, encode_lesson
from tasks.training.data import SampleRef

Renderer = Callable[[Tensor, Tensor], Render]


def make_sample(
    sample: SampleRef,
    portrait: np.ndarray,
    pseudo_label: np.ndarray | None,
    triplane: Tensor,
    render: Renderer,
    view_cameras: np.ndarray,
    settings: TeachSettings,
) -> Sample:
    """The fields of `sample`, seen from its own camera and from view_cameras (n, 25).

    portrait, pseudo_label: (H, W, 3) uint8; without one, what is seen from the sample's camera is the pseudo-label.
    triplane: (1, 3*C, h, w).
    """
    cameras = torch.from_numpy(np.concatenate([sample.camera[None], view_cameras])).to(triplane.device)
    with torch.no_grad():
        seen = render(triplane.expand(len(cameras), -1, -1, -1), cameras)
    pictures, depths = to_bytes(seen.image), seen.depth[:, 0].float().cpu().numpy()
    lesson = Lesson(triplane[0].float().cpu().numpy(), pictures[1:], view_cameras, depths, {})
    edited = pictures[0] if pseudo_label is None else pseudo_label
    shown = {"portrait.png": encode_png(portrait), "pseudo_label.png": encode_png(edited)}
    rest = {"camera.npy": encode_array(sample.camera), "meta.json": encode_json({"key": sample.key})}
    return Sample(sample.key, shown | rest | encode_lesson(lesson, settings))
