"""What a training step is made of, as tensors: prompts, frozen features, the teacher's views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.losses import ViewTarget
from models.pixels import signed
from models.student import Features, PromptKind
from tasks.training_data import Fields, Memory, SampleRef, StepDraw, read_fields

if TYPE_CHECKING:
    from models.clip import Clip
    from models.live3d import Live3D
    from models.mae import Mae
    from models.student import Student


class PromptGroup(NamedTuple):
    """The samples of a batch that have one kind of prompt."""

    kind: PromptKind
    places: Tensor  # (G,) int64, in the batch
    tokens: Tensor  # (G, T, D)


@dataclass(frozen=True)
class Prompts:
    """Prompt tokens of frozen encoders: of every text, and of every pseudo-label that serves as a prompt."""

    text: dict[str, Tensor]  # prompt -> (T, D)
    image: dict[str, Tensor]  # key -> (T, D)
    text_token_size: int
    image_token_size: int

    @classmethod
    def read(cls, samples: Sequence[SampleRef], clip: Clip, mae: Mae, device: str = "cpu") -> Prompts:
        """Encode the prompts of the samples, one by one: a token does not depend on its batch."""
        texts = sorted({sample.prompt for sample in samples})
        references = [sample for sample in samples if sample.image_prompt]
        text = {prompt: clip.text_tokens([prompt])[0].float().to(device) for prompt in texts}
        pictures = [read_fields(sample).pseudo_label for sample in references or samples[:1]]
        encoded = [mae.tokens(picture[None])[0].float().to(device) for picture in pictures]
        image = dict(zip([sample.key for sample in references], encoded, strict=False))
        return cls(text, image, next(iter(text.values())).shape[-1], encoded[0].shape[-1])

    def groups(self, samples: Sequence[SampleRef], references: Sequence[SampleRef | None]) -> list[PromptGroup]:
        """Prompts of a batch by kind: the reference where there is one, else the text."""
        groups = []
        kinds: tuple[PromptKind, ...] = ("text", "image")
        for kind in kinds:
            places = [i for i, reference in enumerate(references) if (reference is not None) == (kind == "image")]
            if places:
                tokens = torch.stack([self._tokens(samples[i], references[i]) for i in places])
                groups.append(PromptGroup(kind, torch.tensor(places), tokens))
        return groups

    def _tokens(self, sample: SampleRef, reference: SampleRef | None) -> Tensor:
        return self.text[sample.prompt] if reference is None else self.image[reference.key]


class Batch(NamedTuple):
    """One step's input and targets; B samples, V views each."""

    features: Features
    prompts: list[PromptGroup]
    cameras: Tensor  # (V + 1, B, 25): the portrait's first
    triplane: Tensor  # (B, 3*C, h, w)
    changed: Tensor  # (B, 1, h, w), mean 1 a sample: how much each place of the triplane counts
    targets: list[ViewTarget]  # V + 1, the portrait's first; none where only triplanes are compared


class BatchMaker:
    """Reads samples and remembers what frozen networks make of them.

    Everything is computed one sample at a time, so that it has the same bits whenever it is computed.
    """

    def __init__(
        self,
        student: Student,
        teacher: Live3D,
        prompts: Prompts,
        memory_mb: int,
        l2d_target: str,
        device: str,
        changed_weight: float = 0.0,
    ) -> None:
        self.student, self.teacher, self.prompts = student, teacher, prompts
        self.l2d_target, self.device, self.changed_weight = l2d_target, device, changed_weight
        self._fields: Memory[Fields] = Memory(memory_mb, lambda fields: fields.bytes)
        self._features: Memory[Features] = Memory(memory_mb, _bytes)
        self._triplanes: Memory[Tensor] = Memory(memory_mb, _bytes_of)
        self._unedited: Memory[Tensor] = Memory(memory_mb, _bytes_of)
        self._seen: Memory[Tensor] = Memory(memory_mb, _bytes_of)

    def fields(self, sample: SampleRef) -> Fields:
        """The decoded sample."""
        return self._fields.get(sample.key, lambda: read_fields(sample))

    def features(self, samples: Sequence[SampleRef]) -> Features:
        """What the student's frozen branches see in the portraits."""
        found = [self._features.get(each.portrait_id, partial(self._encode, each)) for each in samples]
        return Features(torch.cat([each.low for each in found]), torch.cat([each.high for each in found]))

    def triplane(self, sample: SampleRef) -> Tensor:
        """The teacher's triplane (3*C, h, w) of the pseudo-label: stored, or made again."""
        stored = self.fields(sample).triplane
        if stored is not None:
            return torch.from_numpy(stored).to(self.device)
        return self._triplanes.get(sample.key, lambda: self._teach(sample))

    def portrait_target(self, sample: SampleRef) -> Tensor:
        """(3, H, W): what L2D compares with, from the portrait's camera."""
        if self.l2d_target == "pseudo_label":
            return signed(self.fields(sample).pseudo_label[None], self.device)[0]
        return self._seen.get(sample.key, lambda: self._render(sample))

    def make(
        self, samples: Sequence[SampleRef], draw: StepDraw, share: slice = slice(None), with_views: bool = True
    ) -> Batch:
        """The batch of a draw, or this process's share of it; with or without the views to compare."""
        chosen = [samples[index] for index in draw.samples[share]]
        references = [None if index is None else samples[index] for index in draw.references[share]]
        cameras, targets = self._views(chosen, np.array(draw.views[share])) if with_views else (torch.empty(0), [])
        triplane = torch.stack([self.triplane(sample) for sample in chosen])
        return Batch(
            self.features(chosen),
            self.prompts.groups(chosen, references),
            cameras.to(self.device),
            triplane,
            self.changed(chosen, triplane),
            targets,
        )

    def changed(self, samples: Sequence[SampleRef], triplane: Tensor) -> Tensor:
        """triplane: (B, 3*C, h, w).  Returns the weights of its places, more where it leaves the unedited portrait's.

        A small edit (ears, a nose) moves few places: in a plain mean they drown in what stays as it is.
        """
        if not self.changed_weight:
            return triplane.new_ones(len(samples), 1, 1, 1)
        unedited = [self._unedited.get(each.portrait_id, partial(self._reconstruct, each)) for each in samples]
        moved = (triplane - torch.stack(unedited)).abs().mean(dim=1, keepdim=True)
        share = moved / moved.mean(dim=(2, 3), keepdim=True).clamp_min(1e-6)
        return (1.0 + self.changed_weight * share) / (1.0 + self.changed_weight)

    def _views(self, chosen: Sequence[SampleRef], views: np.ndarray) -> tuple[Tensor, list[ViewTarget]]:
        """Cameras (V + 1, B, 25) and what is seen from them.  views: (B, V), of the stored ones."""
        decoded = [self.fields(sample) for sample in chosen]
        cameras = [np.stack([sample.camera for sample in chosen])]
        depths = [np.stack([fields.depths[0] for fields in decoded])]
        images = [torch.stack([self.portrait_target(sample) for sample in chosen])]
        for drawn in views.T:
            pairs = list(zip(decoded, drawn, strict=True))
            cameras.append(np.stack([fields.view_cameras[view] for fields, view in pairs]))
            depths.append(np.stack([fields.depths[view + 1] for fields, view in pairs]))
            images.append(signed(np.stack([fields.views[view] for fields, view in pairs]), self.device))
        targets = [
            ViewTarget(image, torch.from_numpy(depth).to(self.device)[:, None])
            for image, depth in zip(images, depths, strict=True)
        ]
        return torch.from_numpy(np.stack(cameras)), targets

    def _encode(self, sample: SampleRef) -> Features:
        return self.student.features(signed(self.fields(sample).portrait[None], self.device))

    @torch.no_grad()
    def _teach(self, sample: SampleRef) -> Tensor:
        return self.teacher.encode(signed(self.fields(sample).pseudo_label[None], self.device))[0]

    @torch.no_grad()
    def _reconstruct(self, sample: SampleRef) -> Tensor:
        return self.teacher.encode(signed(self.fields(sample).portrait[None], self.device))[0]

    @torch.no_grad()
    def _render(self, sample: SampleRef) -> Tensor:
        camera = torch.from_numpy(sample.camera).to(self.device)[None]
        return self.teacher.render(self.triplane(sample)[None], camera).image[0]


def _bytes(features: Features) -> int:
    return sum(_bytes_of(part) for part in features)


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
