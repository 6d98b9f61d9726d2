"""The training loop of the student: one optimizer over E_p and E_t, checkpoints, curve and pictures.

Works in one process and, started with `accelerate launch`, in several: each takes its share of a batch.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from data_catalog.config.errors import UserError
from data_catalog.config.settings import DistillSettings, Settings
from models.camera import orbit_label
from models.pixels import signed, to_bytes
from models.precision import Precision, autocast
from models.three_d.live3d import Render
from models.three_d.losses import LossWeights, ViewTarget, distillation_loss, triplane_loss
from models.three_d.patches import crop, draw_corners, draw_noise, render_patches
from models.three_d.rendering import SamplingNoise
from tasks.pictures.sheets import contact_sheet, write_png
from tasks.training.batches import Batch, BatchMaker, Prompts
from tasks.training.curve import Curve
from tasks.training.data import Fields, Sampler, SampleRef, StepDraw, read_fields
from tasks.training.rates import learning_rate_share, make_optimizer

if TYPE_CHECKING:
    from models.three_d.live3d import Live3D
    from models.three_d.losses import PerceptualDistance
    from models.three_d.student import Student

log = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2
AHEAD = 2  # steps whose samples are read while one is computed
CLIP_NORM = 1.0
WATCHED = 16  # samples of the val split that the curve follows
GRID_YAW = 0.35  # rad, of the novel view in a grid

OnProgress = Callable[[int, int, dict[str, float], dict[str, Path]], None]


class Lesson(nn.Module):
    """One forward pass of the student, in one call, so that a distributed wrapper sees it."""

    def __init__(self, student: Student, patch_rays: int, precision: Precision) -> None:
        super().__init__()
        self.student, self.patch_rays, self.precision = student, patch_rays, precision

    def forward(
        self, batch: Batch, corners: Tensor | None = None, noise: SamplingNoise | None = None
    ) -> tuple[Tensor, list[Render]]:
        """corners: (V, B, 2) of the patches to render.  Returns the triplane (B, 3*C, h, w) and V renders."""
        low, high = (part.contiguous(memory_format=torch.channels_last) for part in batch.features)
        with autocast(self.precision, low.device.type):
            asked = [self.student.attend(high[group.places], group.tokens, group.kind) for group in batch.prompts]
            order = torch.cat([group.places for group in batch.prompts]).argsort()
            triplane = self.student.lift(torch.cat(asked)[order], low)
        triplane = triplane.contiguous().float()
        if corners is None or noise is None:
            return triplane, []
        count, size = batch.cameras.shape[:2]
        planes, cameras = triplane.repeat(count, 1, 1, 1), batch.cameras.flatten(0, 1)
        seen = render_patches(self.student, planes, cameras, corners.flatten(0, 1), self.patch_rays, noise)
        return triplane, [Render(*(part[i * size : (i + 1) * size] for part in seen)) for i in range(count)]


def train(
    student: Student,
    teacher: Live3D,
    perceptual: PerceptualDistance,
    prompts: Prompts,
    learned: Sequence[SampleRef],
    watched: Sequence[SampleRef],
    settings: Settings,
    working: Path,
    on_progress: OnProgress | None = None,
) -> Curve:
    """Train the student in place to the last iteration and return the curve.

    working: where checkpoints and pictures go; the newest checkpoint there is continued.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    own, device = settings.distill, settings.run.device
    working.mkdir(parents=True, exist_ok=True)
    # A step without image prompts leaves their projection without a gradient.
    accelerator = Accelerator(
        cpu=device == "cpu", kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
    )
    if own.batch_size % accelerator.num_processes:
        raise UserError(
            "distill.batch_size cannot be shared evenly",
            found=own.batch_size,
            expected=f"a multiple of {accelerator.num_processes} processes",
        )
    trainer = Trainer(student, teacher, perceptual, prompts, learned, watched, own, device, accelerator)
    return trainer.run(working, on_progress)


class Trainer:
    """The state of a training run."""

    def __init__(
        self,
        student: Student,
        teacher: Live3D,
        perceptual: PerceptualDistance,
        prompts: Prompts,
        learned: Sequence[SampleRef],
        watched: Sequence[SampleRef],
        settings: DistillSettings,
        device: str,
        accelerator: Any,
    ) -> None:
        self.student, self.perceptual, self.settings = student, perceptual, settings
        self.learned, self.accelerator = learned, accelerator
        self.watched = (watched or learned)[:: max(1, len(watched or learned) // WATCHED)][:WATCHED]
        self.pictured = list({sample.style: sample for sample in (watched or learned)}.values())
        self.maker = BatchMaker(student, teacher, prompts, settings, device)
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
        self.parameters = student.trainable_parameters()
        self.resolution = student.config.live3d.renderer.resolution
        self.patch_rays = settings.patch_rays or self.resolution
        # A step takes two thirds of the time: docs/lab/training.md.
        convert_conv2d_weight_memory_format(student.encoder, torch.channels_last)
        self.lesson, self.optimizer = accelerator.prepare(
            Lesson(student, self.patch_rays, settings.precision), make_optimizer(student, settings)
        )
        self.curve, self.step = Curve(), 0
        self.average: list[Tensor] = []  # of the parameters, where one is wanted
        self._draws: dict[int, StepDraw] = {}  # of this step and those that are read ahead

    def run(self, working: Path, on_progress: OnProgress | None) -> Curve:
        """Continue from the newest checkpoint to the last iteration."""
        settings, main = self.settings, self.accelerator.is_main_process
        self.resume(working)
        self.student.train()
        bar = tqdm(total=settings.iterations, initial=self.step, desc="distill", disable=None if main else True)
        while self.step < settings.iterations:
            self.curve.pending.append(self.take_step())
            self.step += 1
            bar.update()
            final = self.step == settings.iterations
            if final:
                self.take_average()
            look = final or self.step % settings.grid_every == 0
            if look or self.step % settings.log_every == 0:
                values = self.curve.point(self.step, self.watch() if look else {})
                pictures = {"samples": self.draw_grid(working)} if look and main else {}
                if main and on_progress is not None:
                    on_progress(self.step, settings.iterations, values, pictures)
                bar.set_postfix({"loss": f"{values['loss']:.4f}"})
            if main and (final or self.step % settings.checkpoint_every == 0):
                self.save(working)
        bar.close()
        self.maker.loader.close()
        self.student.eval()
        return self.curve

    def take_step(self) -> dict[str, Any]:
        """One update; returns its losses, on the device, and the learning rate."""
        draw, with_views = self.next_draw(), self.has_views(self.step)
        batch = self.maker.make(self.learned, draw, self.share, with_views)
        places = range(len(draw.samples))[self.share]
        generators = [torch.Generator(self.maker.device).manual_seed(draw.noise_seed + place) for place in places]
        share = learning_rate_share(self.step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * share
        loss, parts = self.compare_views(batch, generators) if with_views else self.compare_triplanes(batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()
        self.add_to_average()
        losses = torch.stack([loss.detach(), *(part.detach() for part in parts.values())])
        losses = self.accelerator.reduce(losses, reduction="mean")
        return dict(zip(["loss", *parts], losses.unbind(), strict=True)) | {"lr": self.settings.lr * share}

    @torch.no_grad()
    def add_to_average(self) -> None:
        """Move the average of the weights towards them."""
        if self.settings.ema_decay:
            self.average = self.average or [each.detach().clone() for each in self.parameters]
            get_ema_multi_avg_fn(self.settings.ema_decay)(self.average, self.parameters, self.step)

    @torch.no_grad()
    def take_average(self) -> None:
        """The student's weights become their average, for good."""
        for parameter, average in zip(self.parameters, self.average or self.parameters, strict=True):
            parameter.copy_(average)

    @property
    def share(self) -> slice:
        """This process's places in a batch; every process has as many, and no two have one in common."""
        return slice(self.accelerator.process_index, None, self.accelerator.num_processes)

    def has_views(self, step: int) -> bool:
        """Whether a step compares views; the first ones compare triplanes alone."""
        return step >= self.settings.triplane_iterations

    def next_draw(self) -> StepDraw:
        """The draw of this step. What the steps after it will need begins to be read."""
        for step in range(self.step, min(self.step + AHEAD, self.settings.iterations - 1) + 1):
            if step not in self._draws:
                self._draws[step] = draw = self.sampler.draw(step, self.stored_views)
                self.maker.read_ahead(self.learned, draw, self.share, self.has_views(step))
        return self._draws.pop(self.step)

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
        targets = [self.crop_target(target, each) for target, each in zip(batch.targets, corners, strict=True)]
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

    def crop_target(self, target: ViewTarget, corners: Tensor) -> ViewTarget:
        """The patches of a target that the student renders."""
        return ViewTarget(*(crop(part, corners, self.patch_rays, self.resolution) for part in target))

    @torch.no_grad()
    def watch(self) -> dict[str, float]:
        """How near the student comes to the teacher on portraits it does not train on, by text prompts."""
        l1, lpips = [], []
        for sample in self.watched:
            fields = self.maker.loader.whole(sample)
            target = self.maker.teacher_view(sample, fields)[None]
            image = self._look(sample, fields, torch.from_numpy(sample.camera)[None]).clamp(-1, 1)
            l1.append(float((image - target).abs().mean() / 2))
            lpips.append(float(self.perceptual(image, target).mean()))
        return {"val_l1": sum(l1) / len(l1), "val_lpips": sum(lpips) / len(lpips)}

    @torch.no_grad()
    def draw_grid(self, working: Path) -> Path:
        """One row a style: portrait, pseudo-label, the teacher's view of it, the student's, a novel view."""
        rows = []
        for sample in self.pictured:
            fields, camera = self.maker.loader.whole(sample), torch.from_numpy(sample.camera)[None]
            teacher = to_bytes(self.maker.teacher_view(sample, fields)[None])[0]
            cameras = torch.cat([camera, orbit_label(GRID_YAW, 0.0)])
            student = to_bytes(self._look(sample, fields, cameras))
            rows.append([fields.portrait, fields.pseudo_label, teacher, *student])
        path = working / f"samples-{self.step:06d}.png"
        write_png(path, contact_sheet(rows, scale=max(1, 128 // rows[0][0].shape[0])))
        for old in sorted(working.glob("samples-*.png"))[:-1]:
            old.unlink()
        return path

    def _look(self, sample: SampleRef, fields: Fields, cameras: Tensor) -> Tensor:
        """Views (n, 3, H, W) of the student's edit by text."""
        device = self.maker.device
        features = self.student.features(signed(fields.portrait[None], device))
        tokens = self.maker.prompts.text[sample.prompt][None]
        triplane = self.student.edit(features, tokens, "text")
        return self.student.render(triplane.expand(len(cameras), -1, -1, -1), cameras.to(device)).image

    def save(self, working: Path) -> None:
        """Write a checkpoint under a temporary name, then rename it: what has its name is whole."""
        learned = {name: p.detach() for name, p in self.student.named_parameters() if p.requires_grad}
        state = {"step": self.step, "student": learned, "optimizer": self.optimizer.state_dict()}
        state["average"] = self.average
        state["curve"] = json.dumps([self.curve.rows, self.curve.read()])
        temporary = working / "checkpoint.tmp"
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(working / f"checkpoint-{self.step:08d}.pt")
        for old in sorted(working.glob("checkpoint-*.pt"))[:-KEPT_CHECKPOINTS]:
            old.unlink()

    def resume(self, working: Path) -> None:
        """Take up the newest checkpoint that can be read."""
        for path in sorted(working.glob("checkpoint-*.pt"), reverse=True):
            try:
                state = torch.load(path, map_location=self.maker.device, weights_only=True)
            except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
                log.warning("%s cannot be read and is left out: %s", path.name, error)
                continue
            parameters = dict(self.student.named_parameters())
            with torch.no_grad():
                for name, value in state["student"].items():
                    parameters[name].copy_(value)
            self.optimizer.load_state_dict(state["optimizer"])
            self.average = state["average"]
            self.curve = Curve(*json.loads(state["curve"]))
            self.step = int(state["step"])
            log.info("continuing after iteration %d", self.step)
            return
