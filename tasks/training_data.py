"""The samples of a dataset, read from their shards by offset, and which of them a training step draws.

Every draw is a function of (seed, step): a run that resumes needs no state of any generator, and each process
of a distributed run takes its share of the same batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow.parquet as pq

from data_catalog.encoding import decode_field, dequantise_triplane
from data_catalog.errors import UserError
from data_catalog.seeds import derive
from data_catalog.shards import ShardEntry, entries_from_table, read_sample
from data_catalog.snapshot import SAMPLES
from tasks.wording import normalise

INDEX = "index.parquet"


@dataclass(frozen=True)
class SampleRef:
    """One row of samples.parquet, and where its fields lie."""

    key: str
    style: str
    prompt: str
    prompt_number: int
    prompt_split: str
    portrait_id: str
    split: str
    seed: int
    camera: np.ndarray  # (25,) float32, as estimated
    shard: Path
    entry: ShardEntry
    image_prompt: bool = False  # its pseudo-label may serve as a prompt
    row: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)


def read_samples(folder: Path, root: Path) -> list[SampleRef]:
    """All samples of a dataset in `folder`, by key. Paths of shards are relative to the data root."""
    rows = pq.read_table(folder / SAMPLES).sort_by("key").to_pylist()
    entries: dict[str, dict[str, ShardEntry]] = {}
    samples = []
    for row in rows:
        if row["shard"] not in entries:
            entries[row["shard"]] = _read_index(root / row["shard"])
        samples.append(_sample(row, root / row["shard"], entries[row["shard"]]))
    return samples


def _read_index(shard: Path) -> dict[str, ShardEntry]:
    if not shard.exists():
        raise UserError("a shard of the dataset is gone", shard=shard, hint="stillroom build    (makes it again)")
    return {entry.key: entry for entry in entries_from_table(pq.read_table(shard.parent / INDEX))}


def _sample(row: dict[str, Any], shard: Path, entries: dict[str, ShardEntry]) -> SampleRef:
    return SampleRef(
        key=row["key"],
        style=row["style"],
        prompt=row["prompt"],
        prompt_number=int(row["prompt_number"]),
        prompt_split=row["prompt_split"],
        portrait_id=row["portrait_id"],
        split=row["split"],
        seed=int(row["seed"]),
        camera=np.asarray(row["camera"], dtype=np.float32),
        shard=shard,
        entry=entries[row["key"]],
        image_prompt=bool(row.get("image_prompt")),
        row=row,
    )


def check_no_leakage(samples: Iterable[SampleRef]) -> None:
    """No portrait of the test split, and no test prompt, may be met in training."""
    samples = list(samples)
    tested = [sample for sample in samples if sample.split == "test"]
    learned = [sample for sample in samples if sample.split != "test"]
    portraits = {sample.portrait_id for sample in tested} & {sample.portrait_id for sample in learned}
    # By its words, and across styles: a prompt is met in whichever style and spelling it is met.
    known = {normalise(sample.prompt) for sample in learned}
    prompts = {(sample.style, sample.prompt) for sample in tested if normalise(sample.prompt) in known}
    wrong = [sample.key for sample in learned if sample.prompt_split != "train"]
    wrong += [sample.key for sample in tested if sample.prompt_split != "test"]
    if portraits or prompts or wrong:
        raise UserError(
            "the dataset leaks from train to test",
            portraits=", ".join(sorted(portraits)) or "none",
            prompts="; ".join(f"{style}: {text}" for style, text in sorted(prompts)) or "none",
            samples=", ".join(wrong[:5]) or "none",
            hint="stillroom verify",
        )


@dataclass(frozen=True)
class Fields:
    """A decoded sample. Views and depths come in their cameras' order; depths start with the portrait's."""

    portrait: np.ndarray  # (H, W, 3) uint8
    pseudo_label: np.ndarray  # (H, W, 3) uint8
    triplane: np.ndarray | None  # (3*C, h, w) float32; None where the profile does not store it
    view_cameras: np.ndarray  # (n, 25) float32
    views: np.ndarray  # (n, H, W, 3) uint8
    depths: np.ndarray  # (n + 1, h, h) float32, world units along the ray

    @property
    def bytes(self) -> int:
        arrays = (self.portrait, self.pseudo_label, self.triplane, self.views, self.depths)
        return sum(array.nbytes for array in arrays if array is not None)


Value = TypeVar("Value")


class Memory(Generic[Value]):
    """Values by key; as many as fit into `megabytes` stay, the others are made again each time."""

    def __init__(self, megabytes: int, size: Callable[[Value], int]) -> None:
        self._free, self._size = megabytes * 2**20, size
        self._kept: dict[str, Value] = {}
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of a key, made now if it is not here."""
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        value = make()
        with self._lock:
            if key not in self._kept and self._size(value) <= self._free:
                self._kept[key] = value
                self._free -= self._size(value)
        return value


def read_fields(sample: SampleRef) -> Fields:
    """Decode one sample from its shard."""
    wanted = [name for name in sample.entry.fields if not name.startswith("meta.")]
    content = read_sample(sample.shard, sample.entry, wanted)
    values = {name: decode_field(name, data) for name, data in content.items()}
    return Fields(
        portrait=values["portrait.png"],
        pseudo_label=values["pseudo_label.png"],
        triplane=_triplane(values),
        view_cameras=values["view_cameras.npy"],
        views=_views(values),
        depths=values["depths.npy"],
    )


def _triplane(values: dict[str, Any]) -> np.ndarray | None:
    if "triplane.npy" in values:
        stored: np.ndarray = values["triplane.npy"].astype(np.float32)
        return stored
    if "triplane_q8.npy" in values:
        return dequantise_triplane(values["triplane_q8.npy"], values["triplane_q8_tiles.npy"])
    return None


def _views(values: dict[str, Any]) -> np.ndarray:
    if "views.npy" in values:
        views: np.ndarray = values["views.npy"]
        return views
    return np.stack([values[name] for name in sorted(values) if name.startswith("view_") and name.endswith(".jpg")])


@dataclass(frozen=True)
class StepDraw:
    """What one step trains on: samples by index, and for each its prompt and its views."""

    samples: tuple[int, ...]
    references: tuple[int | None, ...]  # the sample whose pseudo-label is the prompt; None: the text is
    views: tuple[tuple[int, ...], ...]
    noise_seed: int  # of the samples on the rays


class Sampler:
    """Draws batches: each epoch is a new order of all samples, cut into batches across its ends."""

    def __init__(
        self,
        samples: Sequence[SampleRef],
        batch_size: int,
        image_prompt_fraction: float,
        views: int,
        seed: int,
    ) -> None:
        assert samples, "nothing to draw from"
        self.batch_size, self.views, self.seed = batch_size, views, seed
        self.image_prompt_fraction = image_prompt_fraction
        self._samples = samples
        self._references: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            if sample.image_prompt:
                self._references.setdefault(sample.style, []).append(index)
        self._order: tuple[int, np.ndarray] | None = None

    def draw(self, step: int, stored_views: int) -> StepDraw:
        """The batch of a step; every sample has `stored_views` views to choose from."""
        first = step * self.batch_size
        samples = tuple(self._at(first + place) for place in range(self.batch_size))
        rng = np.random.default_rng([self.seed, 1, step])
        references = tuple(self._reference(index, rng) for index in samples)
        count = min(self.views, stored_views)
        views = tuple(tuple(int(v) for v in rng.choice(stored_views, count, replace=False)) for _ in samples)
        return StepDraw(samples, references, views, derive("distill", self.seed, step))

    def _at(self, position: int) -> int:
        epoch, place = divmod(position, len(self._samples))
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self._samples))
            self._order = (epoch, order)
        return int(self._order[1][place])

    def _reference(self, index: int, rng: np.random.Generator) -> int | None:
        """Another kept pseudo-label of the same style; a sample never sees its own result as the prompt."""
        chosen, pick = rng.random() < self.image_prompt_fraction, rng.random()
        style, portrait = self._samples[index].style, self._samples[index].portrait_id
        others = [i for i in self._references.get(style, []) if self._samples[i].portrait_id != portrait]
        return others[int(pick * len(others))] if chosen and others else None
