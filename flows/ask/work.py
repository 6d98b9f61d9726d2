"""Work of each stage, as far as its settings decide on it: the one place where a setting becomes a price.

Operations are counted for the paper's networks at 512x512 (`tasks.evaluation.operations`). In another world only their
ratio counts: it tells what records of other settings say about these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.evaluation.operations import ENCODE, PROMPT, RENDER, STUDENT, UNET, VAE_DECODE, VAE_ENCODE

BACKWARD = 3  # forward and backward together, in forward passes
IMAGE_ENCODER = 0.035  # TFLOP of a MAE ViT-B

Read = Mapping[str, Any]  # the settings that a stage reads


@dataclass(frozen=True)
class Shape:
    """Sizes of what a world's teacher stores of a sample, at its usual side."""

    side: int  # px
    planes: int  # values
    rays: int  # of a view
    png: float  # bytes
    jpeg: float  # bytes


SHAPES = {
    "embedded": Shape(64, 36 * 64 * 64, 32 * 32, 5.5e3, 2e3),
    "paper": Shape(512, 96 * 256 * 256, 128 * 128, 460e3, 122e3),
}


def edited(read: Read, samples: int = 1) -> float:
    """TFLOP of an edit. Guidance costs a prediction for each condition, while it is on."""
    if "steps" not in read:  # the edit came with its portrait
        return 0.0
    text, image = read["guidance_scale"], read["image_guidance_scale"]
    first, last = read["guidance_interval"]
    guided = (image != text) + (image != 1.0) if text > 1.0 else 0  # branches beside the first one
    return float((1 + guided * (last - first)) * UNET * read["steps"] + VAE_ENCODE + VAE_DECODE)


def taught(read: Read, samples: int = 1) -> float:
    """TFLOP of a triplane with its views and the portrait's own."""
    return float(ENCODE + (read["views"] + 1) * RENDER)


def trained(read: Read, samples: int = 1) -> float:
    """TFLOP of a training. The frozen branches run once a portrait."""
    learned = STUDENT - 0.15 + (IMAGE_ENCODER + PROMPT if read["prompt_encoder"] == "learn" else 0.0)
    rendered = max(read["iterations"] - read["triplane_iterations"], 0) * (read["views_per_sample"] + 1) * RENDER
    teacher = {"cached": 0.0, "rendered": read["views_per_sample"] * RENDER}.get(read.get("teacher", "cached"))
    if teacher is None:  # online
        teacher = ENCODE + (read["views_per_sample"] + 1) * RENDER
    passes = BACKWARD * (read["iterations"] * learned + rendered) + read["iterations"] * teacher
    return float(read["batch_size"] * passes)


def measured(read: Read) -> float:
    """TFLOP of measuring a sample by five methods."""
    return float(ENCODE + 3 * STUDENT + 5 * (1 + read["novel_views"] + 2 * read["pose_pairs"]) * RENDER)


def evaluated(read: Read, samples: int = 1) -> float:
    """TFLOP of measuring samples, of timing the editor, and of the pictures."""
    edit = read["edit"]
    steps = {edit["steps"], read["timed_editor_steps"] or edit["steps"]} if "steps" in edit else set()
    timed = (1 + read["timing_repeats"]) * sum(edited({**edit, "steps": number}) for number in steps)
    return samples * measured(read) + timed + read["turntable_frames"] * RENDER


def optimised(read: Read, samples: int = 1) -> float:
    """Steps of another system of Table 1 on an edit, each on a head or on several, and a few more for its measures."""
    own = read["baselines"]
    heads = {"nada_steps": own.get("nada_batch", 1)}
    steps = sum(heads.get(name, 1) * value for name, value in own.items() if name.endswith("_steps"))
    return float(steps + read.get("steps", 0) + 5)


def stored(read: Read, shape: Shape) -> float:
    """Bytes of a taught sample in its shard."""
    planes = {"none": 0.0, "q8": shape.planes * (1 + 8 / 1024), "fp16": shape.planes * 2.0}[read["triplane"]]
    view = shape.jpeg if read["view_format"] == "jpg" else 3.0 * shape.side**2
    return planes + 2 * shape.png + (read["views"] + 1) * (view + 4.0 * shape.rays)


def alike(read: Read, samples: int = 1) -> float:
    return 1.0


def by_samples(read: Read, samples: int = 1) -> float:
    return float(max(samples, 1))


@dataclass(frozen=True)
class Work:
    """Work of a stage, by the settings that it reads.

    count: operations on a sample; of the whole stage, from its samples, where that is one partition.  unlike: settings
    whose effect on the pace is not counted; records that have them otherwise are the last that a price takes.  by_area:
    it grows with the area of the portraits.  bytes: of a sample on the disk.
    """

    count: Callable[[Read, int], float] = alike
    unlike: tuple[str, ...] = ()
    by_area: bool = False
    bytes: Callable[[Read, Shape], float] | None = None

    def ratio(self, now: Read, then: Read, samples: tuple[int, int], area: float) -> float:
        """Return how many times as much work these settings make.  samples: now and then.  area: as a ratio."""
        before = self.count(then, samples[1])
        return (self.count(now, samples[0]) / before if before else 1.0) * (area if self.by_area else 1.0)

    def bytes_ratio(self, now: Read, then: Read, world: str, area: float) -> float:
        """Return how many times as many bytes a sample has."""
        each = 1.0 if self.bytes is None else self.bytes(now, SHAPES[world]) / self.bytes(then, SHAPES[world])
        return each * (area if self.by_area else 1.0)

    def same_kind(self, now: Read, then: Read) -> bool:
        """Whether the settings that are not counted are the same."""
        now, then = ({**read, **read.get("baselines", {})} for read in (now, then))
        return all(now.get(name) == then.get(name) for name in self.unlike)


WORK: dict[str, Work] = {
    "portraits": Work(unlike=("source",)),
    "align": Work(by_area=True, unlike=("detects", "landmarks", "faces", "world")),
    "prompts": Work(unlike=("backend", "model", "max_clip_text")),
    "edit": Work(edited, by_area=True, unlike=("source", "scheduler")),
    "score": Work(by_area=True, unlike=("world",)),
    "select": Work(unlike=("calibration",)),
    "teach": Work(taught, by_area=True, bytes=stored),
    "dataset": Work(by_samples),
    "distill": Work(
        trained,
        by_area=True,
        unlike=(
            *("optimizer", "precision", "mirror", "patch_rays", "grid_every", "l2d_target"),
            *("image_lpips_weight", "view_lpips_weight", "sensitivity_weight"),  # at 0 it is not computed
        ),
    ),
    "evaluate": Work(evaluated, by_area=True, unlike=("bootstrap", "pictures_per_style")),
}
BASELINE = Work(optimised, by_area=True, unlike=("edit", "pti_enough", "spi_enough"))


def work_of(stage: str) -> Work:
    """Return the work of a stage; every other system of Table 1 has the same kind."""
    return WORK.get(stage, BASELINE)
