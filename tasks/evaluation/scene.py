"""Cameras of each tested sample, and the true heads seen from them; the same for every method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data_catalog.config.settings import Settings
from data_catalog.samples.seeds import derive
from models.camera import orbit_label
from tasks.evaluation.metrics import Asked, Truth, true_heads
from tasks.training.data import Fields, SampleRef, group_samples


class Scene:
    """Cameras and true heads of the samples of a dataset."""

    def __init__(self, settings: Settings, training_poses: np.ndarray, rays: int) -> None:
        """training_poses: (N, 25), of which pairs of views are drawn.  rays: across a depth map."""
        self.settings, self.training_poses, self.rays = settings, training_poses, rays

    def ask(self, sample: SampleRef, fields: Fields) -> Asked:
        """Return the inputs of a sample's edit, and its cameras."""
        cameras, poses = self.cameras(sample).numpy(), self.poses(sample)
        return Asked(fields.portrait, sample.prompt, fields.pseudo_label, cameras, poses)

    def cameras(self, sample: SampleRef) -> Tensor:
        """(1 + novel_views, 25): the portrait's camera, the true one where it is known, then those around the front."""
        own = self.settings.evaluate
        angle = torch.arange(own.novel_views) * (2 * torch.pi / own.novel_views)
        around = orbit_label(-own.view_yaw * torch.cos(angle), own.view_pitch * torch.sin(angle))
        return torch.cat([torch.from_numpy(portrait_camera(sample))[None], around])

    def poses(self, sample: SampleRef) -> np.ndarray:
        """(2 * pose_pairs, 25) float32: pairs of cameras of training portraits, drawn for each test portrait.

        Every style and method of a portrait is seen from the same ones.
        """
        own, known = self.settings.evaluate, self.training_poses
        rng = np.random.default_rng(derive("poses", own.seed, sample.portrait_id))
        pairs = [rng.choice(len(known), 2, replace=len(known) < 2) for _ in range(own.pose_pairs)]
        return known[np.concatenate(pairs)]

    def all_cameras(self, sample: SampleRef) -> Tensor:
        """The cameras, and those of the pairs."""
        return torch.cat([self.cameras(sample), torch.from_numpy(self.poses(sample))])

    def find_truths(self, tested: Sequence[SampleRef]) -> dict[str, Truth]:
        """The true styled heads by key, in the procedural world."""
        known = {s.key: s.portrait_seed for s in tested if s.true_camera is not None and s.portrait_seed is not None}
        truths: dict[str, Truth] = {}
        for samples in group_samples([sample for sample in tested if sample.key in known], "portrait_id").values():
            first, styles = samples[0], [sample.style for sample in samples]
            cameras, poses = self.cameras(first).numpy(), self.poses(first)
            heads = true_heads(known[first.key], cameras, self.settings.align.size, styles, self.rays, poses)
            truths |= {sample.key: heads[sample.style] for sample in samples if sample.style in heads}
        return truths


def portrait_camera(sample: SampleRef) -> np.ndarray:
    """(25,) float32: the portrait's true camera where it is known, else the estimated one."""
    return sample.camera if sample.true_camera is None else sample.true_camera
