"""Batches of a training step, as tensors: prompts, frozen features, the teacher's views.

`distill.teacher` selects the source of the views. `cached` takes triplanes and views as stored; `rendered` renders the
stored triplanes from new cameras; `online` makes the triplanes at every step too, as the paper's public code does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data_catalog.config.settings import DistillSettings
from data_catalog.samples.encoding import TILE
from data_catalog.samples.seeds import derive
from models.camera import varied_label
from models.pixels import signed
from models.three_d.losses import ViewTarget
from models.three_d.sensitivity import squared_sensitivity
from models.three_d.student import Features, PromptKind
from tasks.training.data import Fields, Memory, SampleRef, StepDraw, read_fields
from tasks.training.footprint import find_room
from tasks.training.forward import Batch, PromptGroup
from tasks.training.loader import Loader, Wanted
from tasks.training.reading import PromptReader

if TYPE_CHECKING:
    from models.judges.clip import Clip
    from models.three_d.live3d import Live3D
    from models.three_d.mae import Mae
    from models.three_d.student import Student


PROMPTS_MB = 2048  # MB of cached image prompts
PROBED = 40  # samples over which the sensitivity of the teacher's pictures is measured


class Prompts:
    """Prompts of samples, as `Student.read` takes them: every text, and the pseudo-labels that serve as prompts.

    Each is read by itself: a token does not depend on its batch.
    """

    def __init__(
        self, samples: Sequence[SampleRef], clip: Clip, mae: Mae, device: str = "cpu", own: Collection[PromptKind] = ()
    ) -> None:
        """own: the kinds of prompt that the student's own encoders read."""
        self.reader, self.device = PromptReader(clip, mae, own), device
        self.text = {text: self.reader.text([text])[0].to(device) for text in sorted({s.prompt for s in samples})}
        self._images: Memory[Tensor] = Memory(PROMPTS_MB, _bytes_of)

    def image(self, reference: SampleRef) -> Tensor:
        """The prompt of a pseudo-label."""
        return self._images.get(reference.key, lambda: self._read(reference))

    def groups(self, samples: Sequence[SampleRef], references: Sequence[SampleRef | None]) -> list[PromptGroup]:
        """Prompts of a batch by kind: the reference where there is one, else the text."""
        groups = []
        kinds: tuple[PromptKind, ...] = ("text", "image")
        for kind in kinds:
            places = [i for i, reference in enumerate(references) if (reference is not None) == (kind == "image")]
            if places:
                pairs = [(samples[i], references[i]) for i in places]
                read = [self.text[own.prompt] if other is None else self.image(other) for own, other in pairs]
                groups.append(PromptGroup(kind, torch.tensor(places), torch.stack(read)))
        return groups

    def _read(self, reference: SampleRef) -> Tensor:
        picture = read_fields(reference, ["pseudo_label.png"]).pseudo_label
        return self.reader.image(picture[None])[0].to(self.device)


class BatchMaker:
    """Maker of batches; caches the outputs of frozen networks.

    Everything but the views of `rendered` and `online` is computed one sample at a time, so that its bits do not depend
    on the batch.
    """

    def __init__(
        self, student: Student, teacher: Live3D, prompts: Prompts, settings: DistillSettings, device: str = "cpu"
    ) -> None:
        self.student, self.teacher, self.prompts = student, teacher, prompts
        self.settings, self.device = settings, device
        self.online = settings.teacher == "online"
        wanted = Wanted(
            pseudo_label=self.online or settings.l2d_target == "pseudo_label",
            triplane=not self.online,
            views=settings.teacher == "cached",
            own_view=settings.teacher == "cached" and settings.l2d_target == "teacher",
        )
        self.room = room = find_room(student, settings, device)
        memory_mb = 0 if self.online else room.outputs_mb  # online, no output of the teacher is kept
        self.loader = Loader(wanted, room.samples_mb, device)
        self._features: Memory[Features] = Memory(room.features_mb, _bytes)
        self._triplanes: Memory[Tensor] = Memory(memory_mb, _bytes_of)
        self._unedited: Memory[Tensor] = Memory(room.outputs_mb, _bytes_of)
        self._shown: Tensor | None = None

    def read_ahead(
        self, samples: Sequence[SampleRef], draw: StepDraw, share: slice = slice(None), with_views: bool = True
    ) -> None:
        """Start reading what `make` with the same arguments will need."""
        chosen = [samples[index] for index in draw.samples[share]]
        self.loader.read_ahead(chosen, draw.views[share] if with_views else None)

    def make(
        self, samples: Sequence[SampleRef], draw: StepDraw, share: slice = slice(None), with_views: bool = True
    ) -> Batch:
        """Make the batch of a draw, or this process's share of it, with or without views."""
        chosen = [samples[index] for index in draw.samples[share]]
        references = [None if index is None else samples[index] for index in draw.references[share]]
        read = self.loader.take(chosen, draw.views[share] if with_views else None)
        triplane = torch.stack([self.triplane(*pair) for pair in zip(chosen, read, strict=True)])
        cameras = torch.empty(0)
        targets: list[ViewTarget] = []
        if with_views and self.settings.teacher == "cached":
            cameras, targets = self._stored_views(chosen, read, np.array(draw.views[share]))
        elif with_views:
            cameras, targets = self._new_views(chosen, read, triplane, self._draw_places(draw, share))
        return Batch(
            self.features(chosen, read),
            self.prompts.groups(chosen, references),
            cameras.to(self.device),
            triplane,
            self.changed(chosen, read, triplane) * self.shown(samples),
            targets,
        )

    def features(self, samples: Sequence[SampleRef], read: Sequence[Fields]) -> Features:
        """Return the features of the student's frozen branches for the portraits."""
        found = [
            self._features.get(sample.portrait_id, partial(self._encode, fields))
            for sample, fields in zip(samples, read, strict=True)
        ]
        return Features(torch.cat([each.low for each in found]), torch.cat([each.high for each in found]))

    def triplane(self, sample: SampleRef, fields: Fields) -> Tensor:
        """The teacher's triplane (3*C, h, w) of the pseudo-label: stored, or made again."""
        return self._triplanes.get(sample.key, lambda: self._triplane(fields))

    def portrait_target(self, sample: SampleRef, fields: Fields) -> Tensor:
        """Return the target of L2D from the portrait's camera, (3, H, W)."""
        if self.settings.l2d_target == "pseudo_label":
            return signed(fields.pseudo_label[None], self.device)[0]
        return self.teacher_view(sample, fields)

    def teacher_view(self, sample: SampleRef, fields: Fields) -> Tensor:
        """(3, H, W): the teacher's view of the pseudo-label from the portrait's camera: stored, or made again."""
        if fields.own_view is not None and not self.online:
            return signed(fields.own_view[None], self.device)[0]
        return self._render(sample, self.triplane(sample, fields))

    def changed(self, samples: Sequence[SampleRef], read: Sequence[Fields], triplane: Tensor) -> Tensor:
        """Return the weights of a triplane's places, larger where it differs from the unedited portrait's.

        triplane: (B, 3*C, h, w). A small edit (ears, a nose) moves few places, which a plain mean would hide.
        """
        weight = self.settings.changed_weight
        if not weight:
            return triplane.new_ones(len(samples), 1, 1, 1)
        unedited = [
            self._unedited.get(sample.portrait_id, partial(self._reconstruct, fields))
            for sample, fields in zip(samples, read, strict=True)
        ]
        moved = (triplane - torch.stack(unedited)).abs().mean(dim=1, keepdim=True)
        share = moved / moved.mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        return (1.0 + weight * share) / (1.0 + weight)

    def shown(self, samples: Sequence[SampleRef]) -> Tensor:
        """Return weights of a triplane's values (3*C, h, w), mean 1: larger where the teacher's pictures need them.

        They are computed once, on some of the samples. Most values appear in no picture, and in a plain mean they
        outweigh the few that carry a face.
        """
        if not self.settings.sensitivity_weight:
            return torch.ones((), device=self.device)
        if self._shown is None:
            root = self._squared_sensitivity(samples[:: -(-len(samples) // PROBED)]).sqrt()
            share = root / root.mean().clamp_min(1e-12)
            self._shown = (1.0 + self.settings.sensitivity_weight * share) / (1.0 + self.settings.sensitivity_weight)
        return self._shown

    def _squared_sensitivity(self, samples: Sequence[SampleRef]) -> Tensor:
        """Sum the sensitivity (3*C, h, w) over the samples, from the portrait's camera and a stored one."""
        generator = torch.Generator().manual_seed(derive("sensitivity", self.settings.seed))
        total = torch.zeros((), device=self.device)
        for sample in samples:
            triplane = self.triplane(sample, self.loader.whole(sample))[None]
            stored = read_fields(sample, ["view_cameras.npy"]).view_cameras[0]
            for camera in (sample.camera, stored):
                label = torch.from_numpy(camera)[None].to(self.device)
                total = total + squared_sensitivity(self.teacher, triplane, label, generator)
        return total

    def _stored_views(
        self, chosen: Sequence[SampleRef], read: Sequence[Fields], views: np.ndarray
    ) -> tuple[Tensor, list[ViewTarget]]:
        """Return cameras (V + 1, B, 25) and the stored views.  views: numbers (B, V) of stored views."""
        cameras = [np.stack([sample.camera for sample in chosen])]
        depths = [np.stack([fields.depths[0] for fields in read])]
        images = [torch.stack([self.portrait_target(*pair) for pair in zip(chosen, read, strict=True)])]
        for drawn in views.T:
            pairs = list(zip(read, drawn, strict=True))
            cameras.append(np.stack([fields.view_cameras[view] for fields, view in pairs]))
            depths.append(np.stack([fields.depths[view + 1] for fields, view in pairs]))
            images.append(signed(np.stack([fields.view(int(view)) for fields, view in pairs]), self.device))
        targets = [
            ViewTarget(image, torch.from_numpy(depth).to(self.device)[:, None])
            for image, depth in zip(images, depths, strict=True)
        ]
        return torch.from_numpy(np.stack(cameras)), targets

    @torch.no_grad()
    def _new_views(
        self, chosen: Sequence[SampleRef], read: Sequence[Fields], triplane: Tensor, places: np.ndarray
    ) -> tuple[Tensor, list[ViewTarget]]:
        """Return cameras (V + 1, B, 25) and the teacher's new views.  places: (V, B, 5), see `varied_label`."""
        own = torch.from_numpy(np.stack([sample.camera for sample in chosen]))
        new = [varied_label(*torch.from_numpy(drawn).float().T) for drawn in places]
        cameras = torch.stack([own, *new])
        seen = [self.teacher.render(triplane, each.to(self.device)) for each in cameras]
        targets = [ViewTarget(view.image, view.depth) for view in seen]
        if self.settings.l2d_target == "pseudo_label":
            image = torch.stack([self.portrait_target(*pair) for pair in zip(chosen, read, strict=True)])
            targets[0] = targets[0]._replace(image=image)
        return cameras, targets

    def _draw_places(self, draw: StepDraw, share: slice) -> np.ndarray:
        """(V, B, 5): the arguments of `varied_label` for as many new views a sample as are drawn of stored ones."""
        own, shape = self.settings, (len(draw.views[0]), len(draw.samples))
        around, generator = own.view_center_range, np.random.default_rng([draw.noise_seed, 1])
        angles = generator.uniform(-1.0, 1.0, (*shape, 2)) * (own.view_yaw_range, own.view_pitch_range)
        lenses = generator.uniform(-1.0, 1.0, (*shape, 3)) * (own.view_fov_range, around, around)
        return np.concatenate([angles, lenses], axis=-1)[:, share]

    def _encode(self, fields: Fields) -> Features:
        return self.student.features(signed(fields.portrait[None], self.device))

    @torch.no_grad()
    def _triplane(self, fields: Fields) -> Tensor:
        stored = None if self.online else triplane_on(fields, self.device)
        if stored is not None:
            return stored
        return self.teacher.encode(signed(fields.pseudo_label[None], self.device))[0]

    @torch.no_grad()
    def _reconstruct(self, fields: Fields) -> Tensor:
        return self.teacher.encode(signed(fields.portrait[None], self.device))[0]

    @torch.no_grad()
    def _render(self, sample: SampleRef, triplane: Tensor) -> Tensor:
        camera = torch.from_numpy(sample.camera).to(self.device)[None]
        return self.teacher.render(triplane[None], camera).image[0]


def triplane_on(fields: Fields, device: str) -> Tensor | None:
    """Return the stored triplane (3*C, h, w) float32, decoded on the device; None without one."""
    stored = fields.arrays
    if "triplane.npy" in stored:
        return torch.from_numpy(stored["triplane.npy"]).to(device, non_blocking=True).float()
    if "triplane_q8.npy" not in stored:
        return None
    codes, tiles = (
        torch.from_numpy(stored[name]).to(device, non_blocking=True)
        for name in ("triplane_q8.npy", "triplane_q8_tiles.npy")
    )
    channels, height, width = codes.shape
    scale, minimum = tiles[:, :, :, None, :, None]
    blocks = codes.view(channels, height // TILE, TILE, width // TILE, TILE).float()
    return (blocks * scale + minimum).view(channels, height, width)


def _bytes(features: Features) -> int:
    return sum(_bytes_of(part) for part in features)


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
