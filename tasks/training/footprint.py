"""Memory of a training: the bytes of a step, counted without computing it, and room for micro-batches and caches.

A step runs on torch's meta device, whose tensors have shapes and no data. It is counted in float32, of which bfloat16
holds less.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_catalog.config.settings import DistillSettings
from models.judges import lpips_alex
from models.three_d.losses import LossWeights, ViewTarget, distillation_loss
from models.three_d.rendering import SamplingNoise
from models.three_d.student import Student, StudentConfig
from tasks.training.forward import Batch, Lesson, PromptGroup

SPARE = 0.9  # share of the free memory of a GPU that is used
MB = 2**20
OUTPUTS_MB = 2048  # of each kind of the teacher's outputs that are cached, where memory_mb is auto


@dataclass(frozen=True)
class StepBytes:
    """Bytes of a step on some samples, beside weights and the optimizer's moments."""

    held: int  # between forward and backward pass, the batch included
    peak: int  # in the backward pass, with gradients and what is computed again


@dataclass(frozen=True)
class Room:
    """Sizes that fit into the memory of a process."""

    micro_batch: int  # samples
    samples_mb: int
    features_mb: int
    outputs_mb: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are alive, of all tensors made while the mode is on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor):
                self._note(each.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place not in self._sizes:
            self._sizes[place] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, place)

    def _forget(self, place: int) -> None:
        self.now -= self._sizes.pop(place)


def count_step(config: StudentConfig, settings: DistillSettings, samples: int) -> StepBytes:
    """Count a step of a student of these sizes on so many samples. Their prompts are pictures, the larger kind."""
    perceptual = lpips_alex.untrained().to("meta")
    with torch.device("meta"):
        student = Student(config).train()
        rays = settings.patch_rays or config.live3d.renderer.resolution
        lesson = Lesson(student, rays, "float32")
        with LiveBytes() as live:
            batch, corners, noise = _blank_batch(student, settings, samples, rays)
            triplane, renders = lesson(batch, corners, noise)
            targets = batch.targets
            loss, _ = distillation_loss(
                triplane, renders[0], renders[1:], batch.triplane, targets[0], targets[1:], perceptual, LossWeights()
            )
            held = live.now
            loss.backward()
    return StepBytes(held, live.peak)


def _blank_batch(
    student: Student, settings: DistillSettings, samples: int, rays: int
) -> tuple[Batch, Tensor, SamplingNoise]:
    """A batch of shapes alone, with its patches' corners and noise."""
    config, views = student.config, settings.views_per_sample + 1
    encoder, renderer = config.live3d.encoder, config.live3d.renderer
    features = student.features(torch.empty(samples, 3, encoder.image_size, encoder.image_size))
    if config.mae is None:
        prompts = torch.empty(samples, 197, config.image_token_size)
    else:
        prompts = torch.empty(samples, 3, config.mae.image_size, config.mae.image_size)
    with torch.no_grad():  # the teacher's is as large
        triplane = student.lift(features.high, features.low)
    side = rays * renderer.image_size // renderer.resolution
    targets = [
        ViewTarget(torch.empty(samples, 3, side, side), torch.empty(samples, 1, rays, rays)) for _ in range(views)
    ]
    group = PromptGroup("image", torch.arange(samples, device="cpu"), prompts)
    batch = Batch(features, [group], torch.empty(views, samples, 25), triplane, torch.empty(0), targets)
    drawn = (views * samples, rays * rays)
    noise = SamplingNoise(
        torch.empty(*drawn, renderer.rays.coarse_samples), torch.empty(*drawn, renderer.rays.fine_samples)
    )
    return batch, torch.zeros(views, samples, 2, dtype=torch.int64), noise


class StepCounts:
    """Peak bytes of a step by its number of samples, from counts of two and three: each further one needs as much."""

    def __init__(self, config: StudentConfig, settings: DistillSettings) -> None:
        self._two, self._three = (count_step(config, settings, number).peak for number in (2, 3))

    def peak(self, samples: int) -> int:
        """Estimate the bytes of a step on so many samples."""
        return self._two + (samples - 2) * (self._three - self._two)

    def largest_part(self, samples: int, free: float) -> int:
        """Return the size of the fewest equal parts of the samples of which one fits into free bytes; at least 1."""
        sizes = [-(-samples // parts) for parts in range(1, samples + 1)]
        return next((size for size in sizes if self.peak(size) <= free), 1)


def standing_bytes(student: nn.Module, settings: DistillSettings, count: int) -> int:
    """Bytes that the optimizer, `count` processes and an average add to a student's weights and gradients."""
    learned = sum(p.numel() * 4 for p in student.parameters() if p.requires_grad)
    return learned * (2 + (count > 1) + (settings.ema_decay > 0))


def find_room(student: Student, settings: DistillSettings, device: str) -> Room:
    """Return the sizes that fit into the free memory, of the GPU and of this machine."""
    count = int(os.environ.get("WORLD_SIZE", "1"))  # processes that share a batch
    micro_batch = max(1, settings.batch_size // count)
    host_mb = psutil.virtual_memory().available // MB // count
    features_mb = host_mb // 4
    if device.startswith("cuda"):
        free = torch.cuda.mem_get_info(device)[0] * SPARE - standing_bytes(student, settings, count)
        steps = StepCounts(student.config, settings)
        micro_batch = steps.largest_part(micro_batch, free)
        features_mb = max(0, int(free - steps.peak(micro_batch)) // MB - 2 * OUTPUTS_MB)
    micro_batch = micro_batch if settings.micro_batch == "auto" else settings.micro_batch
    if settings.memory_mb != "auto":
        return Room(micro_batch, settings.memory_mb, settings.memory_mb, settings.memory_mb)
    return Room(micro_batch, host_mb // 4, features_mb, min(OUTPUTS_MB, host_mb // 8))
