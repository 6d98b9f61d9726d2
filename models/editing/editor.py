"""The 2D teacher: InstructPix2Pix (Brooks et al. 2023), one picture and one instruction to an edited picture.

The embedded editor and `timbrooks/instruct-pix2pix` are the same diffusers pipeline; the pictures are those of its
plain call. Each sample draws its noise from a generator of its own, so a sample does not depend on its batch.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from models.editing.batching import Batches, CudaMemory, Memory, fitting
from models.editing.unet_graph import UnetGraph, fits_graph
from models.libraries import diffusers
from models.pixels import to_levels
from models.precision import has_bfloat16

KEPT = 1024  # entries of each encoding cache (prompts, portraits); at the paper's size 120 MB and 32 MB
EMPTY = ""  # instruction of the branches without one
# Keys: values of `edit.scheduler`. DDIM clips to the range of pictures by default; latents have another.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp": ("DPMSolverMultistepScheduler", {}),
}

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]


class Scales(NamedTuple):
    """Guidance scales of the sampling.

    `text` pulls towards the instruction, `image` towards the portrait (s_T and s_I, Brooks et al., Eq. 3). Outside
    the `interval`, as shares of the steps, only the prediction from both is computed (Kynkäänniemi et al. 2024).
    """

    text: float
    image: float
    interval: tuple[float, float] = (0.0, 1.0)

    def weights(self, share: float) -> tuple[float, float, float]:
        """Return the weights of the predictions from (portrait and instruction, portrait alone, neither).

        share: of the steps done, in [0, 1). The weights are Eq. 3, sorted by its terms. As in diffusers, a text scale
        of 1 switches all guidance off.
        """
        if self.text <= 1.0 or not self.interval[0] <= share < self.interval[1]:
            return (1.0, 0.0, 0.0)
        return (self.text, self.image - self.text, 1.0 - self.image)


class Editor(nn.Module):
    """An InstructPix2Pix pipeline."""

    def __init__(self, pipeline: diffusers.StableDiffusionInstructPix2PixPipeline) -> None:
        super().__init__()
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline = pipeline
        self.unet = pipeline.unet  # registered, so that the module's device and parameters are the pipeline's
        self._denoise: Denoise = self._denoise_by_unet
        self.memory: Memory | None = None  # set on a GPU; without it, samples are made one at a time
        self._batches: dict[tuple[object, ...], Batches] = {}  # by (batch size asked for, shape of a portrait)
        self._prompts: OrderedDict[str, Tensor] = OrderedDict()
        self._portraits: OrderedDict[str, Tensor] = OrderedDict()

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu", revision: str | None = None) -> Self:
        """Load a pipeline in diffusers' layout, in its fastest form.

        On a GPU: half precision. On a CPU: a graph, or bfloat16 where the network is too large for a graph and the
        processor computes in bfloat16.
        """
        on_gpu = device.startswith("cuda")
        pipeline = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(
            folder,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            revision=revision,
            safety_checker=None,
            requires_safety_checker=False,
        )
        editor = cls(pipeline.to(device))
        if on_gpu:
            editor.memory = CudaMemory(device)
            pipeline.unet.to(memory_format=torch.channels_last)
            pipeline.vae.to(memory_format=torch.channels_last)
        elif fits_graph(pipeline.unet):
            editor._denoise = UnetGraph(pipeline.unet)
        elif has_bfloat16(device):
            for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
                part.bfloat16()  # half the time and half the memory
        return editor

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Let torch compile the UNet at its next step; arguments as for `torch.compile`."""
        if self.unet._compiled_call_impl is None:
            self.unet.compile(*args, **kwargs)
        self._denoise = self._denoise_by_unet

    def edit(
        self,
        portraits: np.ndarray,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
        image_guidance_scale: float,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        keep_portraits: bool = False,
        scheduler: str | None = None,
        batch_size: int | Literal["auto"] | None = None,
    ) -> np.ndarray:
        """Edit portraits.

        portraits: (B, H, W, 3) uint8, with one prompt and one seed each.  Returns (B, H, W, 3) uint8.
        keep_portraits: cache the portraits' encodings for later prompts.  scheduler: one of `SCHEDULERS`, or the
        checkpoint's own.  batch_size: samples at once on a GPU; auto: as many as fit; None: all.
        """
        if not len(portraits) == len(prompts) == len(seeds):
            raise ValueError(f"{len(portraits)} portraits, {len(prompts)} prompts and {len(seeds)} seeds do not match")
        scales = Scales(guidance_scale, image_guidance_scale, guidance_interval)

        def make(part: slice) -> Tensor:
            return self.sample(portraits[part], prompts[part], seeds[part], steps, scales, keep_portraits, scheduler)

        edited = self._in_batches(make, portraits.shape, batch_size)
        pictures = torch.cat(edited).permute(0, 2, 3, 1).float().cpu().numpy()
        return to_levels(np.clip(pictures, 0.0, 1.0))

    def _in_batches(
        self, make: Callable[[slice], Tensor], shape: tuple[int, ...], size: int | Literal["auto"] | None
    ) -> list[Tensor]:
        """Make all samples, batch by batch.  shape: of the portraits, (B, H, W, 3)."""
        count = shape[0]
        if self.memory is None:
            # A CPU gains nothing from a batch and would add in another order: alone, a sample has the same bits always.
            return [make(slice(i, i + 1)) for i in range(count)]
        asked, first = size or count, list[Tensor]()
        known = (asked, *shape[1:])
        if known not in self._batches and isinstance(asked, int):
            self._batches[known] = Batches(asked)
        elif known not in self._batches:
            one, used = self.memory.watch(partial(make, slice(0, 1)))  # by itself, to see what one takes
            first, self._batches[known] = [one], Batches(fitting(self.memory.free(), used))
        return [*first, *self._batches[known].map(make, len(first), count)]

    @torch.no_grad()
    def sample(
        self,
        portraits: np.ndarray,
        prompts: Sequence[str],
        seeds: Sequence[int],
        steps: int,
        scales: Scales,
        keep_portraits: bool = False,
        scheduler: str | None = None,
    ) -> Tensor:
        """All samples in one batch.  portraits: (B, H, W, 3) uint8.  Returns (B, 3, H, W), [0, 1], on the device."""
        pipeline = self.pipeline
        # Encode what conditions the sampling.
        image = torch.cat([self._encode_portrait(portrait, keep_portraits) for portrait in portraits])
        tokens = torch.cat([self._encode_prompt(prompt) for prompt in prompts])
        # Start from noise that depends on the sample's seed alone.
        generators = [torch.Generator("cpu").manual_seed(int(seed)) for seed in seeds]
        shape = (len(image), pipeline.vae.config.latent_channels, *image.shape[2:])
        noise = diffusers.utils.torch_utils.randn_tensor(shape, generators, image.device, tokens.dtype)
        chosen = self.scheduler(scheduler)
        chosen.set_timesteps(steps)
        latents = self._sample_latents(noise * chosen.init_noise_sigma, image, tokens, scales, generators, chosen)
        # Decode the latents to pictures.
        decoded = pipeline.vae.decode(latents.to(image.dtype) / pipeline.vae.config.scaling_factor, return_dict=False)
        pictures: Tensor = pipeline.image_processor.postprocess(decoded[0], output_type="pt")
        return pictures

    def scheduler(self, name: str | None) -> Any:
        """A scheduler that continues the checkpoint's own noise schedule; that itself by default.

        Raises ValueError where it cannot take what the network predicts.
        """
        own = self.pipeline.scheduler
        if name is None:
            return own
        kind, options = SCHEDULERS[name]
        if name == "euler_a" and own.config.prediction_type == "sample":  # diffusers has not written it
            raise ValueError(f"{name} cannot sample with a network that predicts the picture itself")
        return getattr(diffusers, kind).from_config(own.config, **options)

    def _sample_latents(
        self,
        latents: Tensor,
        image: Tensor,
        tokens: Tensor,
        scales: Scales,
        generators: list[torch.Generator],
        scheduler: Any,
    ) -> Tensor:
        """Denoise to the edit's latents.  latents, image: (B, C, h, w).  tokens: (B, T, D).

        Nothing is read back from the device: the scheduler counts on the host, and its numbers go along with the calls.
        """
        accepted = inspect.signature(scheduler.step).parameters
        extra = {"generator": generators} if "generator" in accepted else {}
        empty = self._encode_prompt(EMPTY).expand_as(tokens)
        branches = ((tokens, image), (empty, image), (empty, torch.zeros_like(image)))
        stacked: dict[tuple[float, float, float], tuple[Tensor, Tensor]] = {}
        timesteps = scheduler.timesteps.to(image.device)
        for i, timestep in enumerate(scheduler.timesteps):
            # Predict with those branches alone that have a weight at this step.
            weights = scales.weights(i / len(timesteps))
            used = [branch for branch, weight in zip(branches, weights, strict=True) if weight]
            if weights not in stacked:
                stacked[weights] = (torch.cat([text for text, _ in used]), torch.cat([picture for _, picture in used]))
            context, beside = stacked[weights]
            scaled = scheduler.scale_model_input(latents, timestep).to(image.dtype)
            seen = torch.cat([torch.cat([scaled] * len(used)), beside], dim=1)
            predicted = self._denoise(seen, timesteps[i], context).float().chunk(len(used))
            # Combine the predictions and take the step.
            parts = [part * weight for part, weight in zip(predicted, filter(None, weights), strict=True)]
            latents = scheduler.step(sum(parts), timestep, latents, **extra, return_dict=False)[0]
        return latents

    def _denoise_by_unet(self, latents: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        prediction: Tensor = self.unet(latents, timestep, encoder_hidden_states=tokens, return_dict=False)[0]
        return prediction

    def _encode_prompt(self, prompt: str) -> Tensor:
        """(1, T, D), once for each prompt."""
        tokens: Tensor = _remembered(
            self._prompts,
            prompt,
            lambda: self.pipeline._encode_prompt(prompt, self.unet.device, 1, do_classifier_free_guidance=False),
        )
        return tokens

    def _encode_portrait(self, portrait: np.ndarray, keep: bool) -> Tensor:
        """portrait: (H, W, 3) uint8.  Returns its latents (1, C, h, w)."""

        def encode() -> Tensor:
            image = torch.from_numpy(np.ascontiguousarray(portrait)).permute(2, 0, 1)[None].float() / 255.0
            vae = self.pipeline.vae
            image = self.pipeline.image_processor.preprocess(image).to(vae.device, vae.dtype)
            latents: Tensor = vae.encode(image).latent_dist.mode()
            return latents

        if not keep:
            return encode()
        content = hashlib.sha256(portrait.tobytes()).hexdigest()
        return _remembered(self._portraits, f"{portrait.shape} {content}", encode)


def _remembered(kept: OrderedDict[str, Tensor], key: str, make: Callable[[], Tensor]) -> Tensor:
    """Return the cached value of a key, made if it is missing; the least recently used one is dropped."""
    if key not in kept:
        kept[key] = make()
        if len(kept) > KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
