"""Looks at a student while it learns: how near it comes to the teacher, and a contact sheet of what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.camera import orbit_label
from models.pixels import signed, to_bytes
from tasks.pictures.sheets import contact_sheet, write_png
from tasks.training.batches import BatchMaker
from tasks.training.data import Fields, SampleRef

if TYPE_CHECKING:
    from models.three_d.losses import PerceptualDistance

WATCHED = 16  # samples of the val split that the curve follows
GRID_YAW = 0.35  # rad, of the novel view in a grid


class Looks:
    """Looks at the student of a batch maker, by text prompts, on some of the samples."""

    def __init__(self, maker: BatchMaker, perceptual: PerceptualDistance, samples: Sequence[SampleRef]) -> None:
        self.maker, self.perceptual = maker, perceptual
        self.watched = samples[:: max(1, len(samples) // WATCHED)][:WATCHED]
        self.pictured = list({sample.style: sample for sample in samples}.values())

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Distance of the student's views from the teacher's, from the portraits' own cameras."""
        l1, lpips = [], []
        for sample in self.watched:
            fields = self.maker.loader.whole(sample)
            target = self.maker.teacher_view(sample, fields)[None]
            image = self._see(sample, fields, torch.from_numpy(sample.camera)[None]).clamp(-1, 1)
            l1.append(float((image - target).abs().mean() / 2))
            lpips.append(float(self.perceptual(image, target).mean()))
        return {"val_l1": sum(l1) / len(l1), "val_lpips": sum(lpips) / len(lpips)}

    @torch.no_grad()
    def draw(self, folder: Path, step: int) -> Path:
        """Draw one row a style: portrait, pseudo-label, the teacher's view of it, the student's, a novel view."""
        rows = []
        for sample in self.pictured:
            fields, camera = self.maker.loader.whole(sample), torch.from_numpy(sample.camera)[None]
            teacher = to_bytes(self.maker.teacher_view(sample, fields)[None])[0]
            cameras = torch.cat([camera, orbit_label(GRID_YAW, 0.0)])
            student = to_bytes(self._see(sample, fields, cameras))
            rows.append([fields.portrait, fields.pseudo_label, teacher, *student])
        path = folder / f"samples-{step:06d}.png"
        write_png(path, contact_sheet(rows, scale=max(1, 128 // rows[0][0].shape[0])))
        for old in sorted(folder.glob("samples-*.png"))[:-1]:
            old.unlink()
        return path

    def _see(self, sample: SampleRef, fields: Fields, cameras: Tensor) -> Tensor:
        """Views (n, 3, H, W) of the student's edit by text."""
        device, student = self.maker.device, self.maker.student
        features = student.features(signed(fields.portrait[None], device))
        tokens = student.read(self.maker.prompts.text[sample.prompt][None], "text")
        triplane = student.edit(features, tokens, "text")
        return student.render(triplane.expand(len(cameras), -1, -1, -1), cameras.to(device)).image
