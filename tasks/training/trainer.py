"""The trainer of the student: one update of E_p and E_t at a time, and the state that goes into a checkpoint.

Loops call `step` and `schedule.step`; they decide when to look, draw, save and stop. The trainer works in one process
and in several: each takes its share of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from data_catalog.config.errors import UserError
from data_catalog.config.settings import DistillSettings
from models.three_d.losses import LossWeights, ViewTarget, distillation_loss, triplane_loss
from models.three_d.patches import crop, draw_corners, draw_noise
from tasks.training.batches import Batch, BatchMaker
from tasks.training.data import Sampler, SampleRef, StepDraw, read_fields
from tasks.training.forward import Lesson
from tasks.training.rates import make_optimizer

if TYPE_CHECKING:
    from models.three_d.losses import PerceptualDistance

AHEAD = 2  # steps whose samples are read while one is computed


def micro_shares(batch: int, share: slice, most: int) -> list[slice]:
    """Cut a process's places of a batch into slices of at most so many places."""
    places = range(batch)[share]
    parts = (places[first : first + most] for first in range(0, len(places), most))
    return [slice(part.start, part.stop, part.step) for part in parts]


class Trainer:
    """A student while it learns from the samples of `learned`, as `maker` presents them.

    Everything of the student that has a gradient learns. course: share of the full learning rates at a step.
    """

    def __init__(
        self,
        maker: BatchMaker,
        perceptual: PerceptualDistance,
        learned: Sequence[SampleRef],
        settings: DistillSettings,
        course: Callable[[int], float],
        accelerator: Any,
    ) -> None:
        self.student, self.maker, self.perceptual = maker.student, maker, perceptual
        self.learned, self.settings, self.accelerator = learned, settings, accelerator
        self.sampler = Sampler(
            learned,
            settings.batch_size,
            settings.image_prompt_fraction,
            settings.views_per_sample,
            settings.seed,
        )
        self.stored_views = len(read_fields(learned[0], ["view_cameras.npy"]).view_cameras)
        self.weights = LossWeights(
            lambda_2d=settings.lambda_2d,
            lambda_3d=settings.lambda_3d,
            image_l2=settings.image_l2_weight,
            image_lpips=settings.image_lpips_weight,
            view_lpips=settings.view_lpips_weight,
            triplane=settings.triplane_weight,
            depth=settings.depth_weight,
        )
        self.parameters = [each for each in self.student.parameters() if each.requires_grad]
        self.resolution = self.student.config.live3d.renderer.resolution
        self.patch_rays = settings.patch_rays or self.resolution
        if self.patch_rays > self.resolution:
            hint = f"--set distill.patch_rays={self.resolution}, or null for the whole view"
            raise UserError("distill.patch_rays is more than a view has", found=self.patch_rays, hint=hint)
        # A step takes two thirds of the time: docs/lab/training.md.
        convert_conv2d_weight_memory_format(self.student.encoder, torch.channels_last)
        optimizer = make_optimizer(self.student, settings)
        # Not prepared by accelerate, which would step it once for every process.
        self.schedule = LambdaLR(optimizer, course)
        self.lesson, self.optimizer = accelerator.prepare(
            Lesson(self.student, self.patch_rays, settings.precision), optimizer
        )
        self.micro_batch = maker.room.micro_batch
        self.taken = 0  # steps
        self.average: list[Tensor] = []  # of the parameters, where one is wanted
        self._ahead: dict[int, StepDraw] = {}  # draws of this step and those that are read ahead
        self._ahead_with_views = False

    def step(self, with_views: bool) -> dict[str, Any]:
        """Update the weights once; returns the losses, on the device, and the learning rate of E_p.

        with_views: compare what is seen, too, not only triplanes. The loop steps `schedule` afterwards.
        """
        draw = self._next_draw(with_views)
        self.optimizer.zero_grad(set_to_none=True)
        *first, last = micro_shares(len(draw.samples), self.share, self.micro_batch)
        with self.accelerator.no_sync(self.lesson):  # processes exchange gradients once a step
            found = [self._learn_from(draw, share, with_views) for share in first]
        found.append(self._learn_from(draw, last, with_views))
        if self.settings.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        self.add_to_average()
        self.taken += 1
        losses = torch.stack([torch.stack([*each.values()]) for each in found]).sum(dim=0)
        losses = self.accelerator.reduce(losses, reduction="mean")
        rate = self.optimizer.param_groups[0]["lr"]
        return dict(zip(found[0], losses.unbind(), strict=True)) | {"lr": rate}

    def _learn_from(self, draw: StepDraw, share: slice, with_views: bool) -> dict[str, Tensor]:
        """Add the gradients of some places of a batch; returns their part of this process's losses.

        Every loss is a mean over samples: those of micro-batches, by their sizes, make that of the whole.
        """
        batch = self.maker.make(self.learned, draw, share, with_views)
        places = range(len(draw.samples))
        generators = [
            torch.Generator(self.maker.device).manual_seed(draw.noise_seed + place) for place in places[share]
        ]
        loss, parts = self.compare_views(batch, generators) if with_views else self.compare_triplanes(batch)
        weight = len(places[share]) / len(places[self.share])
        self.accelerator.backward(loss * weight)
        return {name: each.detach() * weight for name, each in {"loss": loss, **parts}.items()}

    def finish(self) -> None:
        """Stop reading ahead; no step follows."""
        self.maker.loader.close()
        self.student.eval()

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on. Frozen weights are not in it."""
        return {
            "taken": self.taken,
            "student": {name: p.detach() for name, p in self.student.named_parameters() if p.requires_grad},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        parameters = dict(self.student.named_parameters())
        for name, value in state_dict["student"].items():
            parameters[name].copy_(value)
        self.taken, self.average = state_dict["taken"], state_dict["average"]
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.schedule.load_state_dict(state_dict["schedule"])

    @torch.no_grad()
    def add_to_average(self) -> None:
        """Move the average of the weights towards them."""
        if self.settings.ema_decay:
            self.average = self.average or [each.detach().clone() for each in self.parameters]
            get_ema_multi_avg_fn(self.settings.ema_decay)(self.average, self.parameters, self.taken)

    @torch.no_grad()
    def take_average(self) -> None:
        """The student's weights become their average, for good."""
        for parameter, average in zip(self.parameters, self.average or self.parameters, strict=True):
            parameter.copy_(average)

    @property
    def share(self) -> slice:
        """This process's places in a batch; every process has as many, and no two have one in common."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def compare_triplanes(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the first iterations."""
        triplane, _ = self.lesson(batch)
        error = triplane_loss(triplane, batch.triplane, batch.counts)
        return error, {"loss_triplane": error}

    def compare_views(self, batch: Batch, generators: list[torch.Generator]) -> tuple[Tensor, dict[str, Tensor]]:
        """The whole loss, on a patch of each view."""
        views = len(batch.cameras)
        corners = draw_corners(views, self.resolution, self.patch_rays, generators)
        noise = draw_noise(self.student, views, self.patch_rays, generators)
        triplane, renders = self.lesson(batch, corners, noise)
        # The patches of the targets that the student renders.
        targets = [
            ViewTarget(*(crop(part, each, self.patch_rays, self.resolution) for part in target))
            for target, each in zip(batch.targets, corners, strict=True)
        ]
        return distillation_loss(
            triplane,
            renders[0],
            renders[1:],
            batch.triplane,
            targets[0],
            targets[1:],
            self.perceptual,
            self.weights,
            batch.counts,
        )

    def _next_draw(self, with_views: bool) -> StepDraw:
        """The draw of this step. What the steps after it will need, if they are of its kind, begins to be read."""
        if with_views != self._ahead_with_views:
            self.maker.loader.forget()
            self._ahead, self._ahead_with_views = {}, with_views
        for step in range(self.taken, self.taken + AHEAD + 1):
            if step not in self._ahead:
                self._ahead[step] = draw = self.sampler.draw(step, self.stored_views)
                self.maker.read_ahead(self.learned, draw, self.share, with_views)
        return self._ahead.pop(self.taken)
