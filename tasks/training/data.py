"""Samples of a dataset, read from their shards by offset, and the draws of a training step.

Every draw is a function of (seed, step): a run that resumes needs no state of any generator, and each process
of a distributed run takes its share of the same batch.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from data_catalog.config.errors import UserError
from data_catalog.samples.encoding import decode_rgb, dequantise_triplane
from data_catalog.samples.seeds import derive
from data_catalog.samples.shard_index import check_shards, read_index
from data_catalog.samples.shards import ShardEntry, bytes_to_read, read_into
from tasks.language.wording import normalise
from tasks.tables.samples import ALL_SCORES, SAMPLE_ROWS, SampleRow

OWN_VIEW = ("own_view.npy", "own_view.jpg")
ARRAY_HEADER = 1 << 12  # bytes within which an array's data starts


@dataclass(frozen=True)
class SampleRef:
    """Row of samples.parquet, and the place of its fields."""

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
    person: str = ""  # mirrored copies of a portrait share it
    image_prompt: bool = False  # its pseudo-label may serve as a prompt in training
    rank: int | None = None
    portrait_seed: int | None = None  # of the procedural world
    true_camera: np.ndarray | None = field(default=None, hash=False, compare=False)  # (25,) float32, where known
    scores: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)  # by column


def read_samples(folder: Path, root: Path) -> list[SampleRef]:
    """All samples of a dataset in `folder`, by key. Paths of shards are relative to the data root."""
    rows = sorted(SAMPLE_ROWS.read(folder), key=lambda row: row.key)
    entries: dict[str, dict[str, ShardEntry]] = {}
    samples = []
    for row in rows:
        if row.shard not in entries:
            entries[row.shard] = read_index(root / row.shard)
        if row.key not in entries[row.shard]:
            hint = "stillroom repair    (makes the shard again)"
            raise UserError(f"the index does not know {row.key}", shard=root / row.shard, hint=hint)
        samples.append(_sample(row, root / row.shard, entries[row.shard][row.key]))
    return samples


def _sample(row: SampleRow, shard: Path, entry: ShardEntry) -> SampleRef:
    return SampleRef(
        key=row.key,
        style=row.style,
        prompt=row.prompt,
        prompt_number=row.prompt_number,
        prompt_split=row.prompt_split,
        portrait_id=row.portrait_id,
        split=row.split,
        seed=row.seed,
        camera=np.asarray(row.camera, dtype=np.float32),
        shard=shard,
        entry=entry,
        person=row.person or row.portrait_id,
        image_prompt=row.split == "train",
        rank=row.rank,
        portrait_seed=row.portrait_seed,
        true_camera=None if row.true_camera is None else np.asarray(row.true_camera, dtype=np.float32),
        scores={name: getattr(row, name) for name in ALL_SCORES},
    )


def group_samples(samples: Iterable[SampleRef], by: Literal["style", "portrait_id"]) -> dict[str, list[SampleRef]]:
    """The samples of each style or portrait, in their order."""
    groups: dict[str, list[SampleRef]] = {}
    for sample in samples:
        groups.setdefault(getattr(sample, by), []).append(sample)
    return groups


def check_no_leakage(samples: Iterable[SampleRef]) -> None:
    """Raise where a person of the test split or a test prompt would be used in training."""
    samples = list(samples)
    tested = [sample for sample in samples if sample.split == "test"]
    learned = [sample for sample in samples if sample.split != "test"]
    people = {sample.person for sample in tested} & {sample.person for sample in learned}
    portraits = {sample.portrait_id for sample in samples if sample.person in people}
    # By its words, and across styles: a prompt counts as the same in any style and spelling.
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


def check_stored(samples: Iterable[SampleRef]) -> None:
    """Check every shard and its index against the dataset, before training."""
    keys: dict[Path, list[str]] = {}
    for sample in samples:
        keys.setdefault(sample.shard, []).append(sample.key)
    check_shards(keys)


@dataclass(frozen=True)
class Fields:
    """Fields of a sample, all or those that were read, by their names; pictures are decoded.

    Views and depths come in their cameras' order; depths start with the portrait's.
    """

    arrays: dict[str, np.ndarray]

    @property
    def portrait(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.arrays["portrait.png"]

    @property
    def pseudo_label(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.arrays["pseudo_label.png"]

    @property
    def triplane(self) -> np.ndarray | None:
        """(3*C, h, w) float32; None where the profile does not store it."""
        if "triplane.npy" in self.arrays:
            return self.arrays["triplane.npy"].astype(np.float32)
        if "triplane_q8.npy" in self.arrays:
            return dequantise_triplane(self.arrays["triplane_q8.npy"], self.arrays["triplane_q8_tiles.npy"])
        return None

    @property
    def view_cameras(self) -> np.ndarray:
        """(n, 25) float32."""
        return self.arrays["view_cameras.npy"]

    @property
    def depths(self) -> np.ndarray:
        """(n + 1, h, h) float32, world units along the ray."""
        return self.arrays["depths.npy"]

    @property
    def views(self) -> np.ndarray:
        """(n, H, W, 3) uint8."""
        return np.stack([self.view(number) for number in range(len(self.view_cameras))])

    @property
    def own_view(self) -> np.ndarray | None:
        """(H, W, 3) uint8: the teacher's view from the portrait's camera; None where it was not stored or not read."""
        return next((self.arrays[name] for name in OWN_VIEW if name in self.arrays), None)

    def view(self, number: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.arrays["views.npy"][number] if "views.npy" in self.arrays else self.arrays[view_name(number)]

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


def view_name(number: int) -> str:
    """The field of one view, where each has its own."""
    return f"view_{number:02d}.jpg"


def read_fields(sample: SampleRef, names: Iterable[str] | None = None, buffer: np.ndarray | None = None) -> Fields:
    """Read and decode fields of one sample: those named, or all but its description.

    buffer: (n,) uint8 with room for them. Arrays lie in it and are valid until it is used again.
    """
    wanted = [name for name in sample.entry.fields if name != "meta.json"] if names is None else list(names)
    if buffer is None:
        buffer = np.empty(bytes_to_read(sample.entry, wanted), np.uint8)
    content = read_into(sample.shard, sample.entry, wanted, buffer)
    try:
        return Fields({name: _decode(name, data) for name, data in content.items()})
    except (OSError, ValueError, SyntaxError) as error:
        hint = "stillroom repair    (makes damaged partitions again)"
        raise UserError(f"{sample.key} cannot be decoded", shard=sample.shard, cause=error, hint=hint) from error


def _decode(name: str, data: np.ndarray) -> np.ndarray:
    return _array(data) if name.endswith(".npy") else decode_rgb(data.tobytes())


def _array(data: np.ndarray) -> np.ndarray:
    """The array of an npy file (n,) uint8, without copying it."""
    header = io.BytesIO(data[:ARRAY_HEADER].tobytes())
    version = np.lib.format.read_magic(header)  # moves on to the header
    if version != (1, 0):
        raise ValueError(f"an npy file of version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    if fortran:
        raise ValueError("an npy file by columns")
    return data[header.tell() :].view(dtype).reshape(shape)


Value = TypeVar("Value")


class Memory(Generic[Value]):
    """Cache of values by key; up to `megabytes` are kept, further ones are made again each time."""

    def __init__(self, megabytes: int, size: Callable[[Value], int]) -> None:
        self._free, self._size = megabytes * 2**20, size
        self._kept: dict[str, Value] = {}
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made now if it is not cached."""
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        value = make()
        with self._lock:
            if key not in self._kept and self._size(value) <= self._free:
                self._kept[key] = value
                self._free -= self._size(value)
        return value


@dataclass(frozen=True)
class StepDraw:
    """Draw of one step: samples by index, and for each its prompt and its views."""

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
        if not samples:
            raise UserError("the dataset holds no sample to train on", hint="more portraits: --set portraits.count=N")
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
        """Draw another kept pseudo-label of the same style; a sample's own result is never its prompt."""
        chosen, pick = rng.random() < self.image_prompt_fraction, rng.random()
        own = self._samples[index]
        mates = self._references.get(own.style, []) if chosen else []
        others = [i for i in mates if self._samples[i].person != own.person]
        return others[int(pick * len(others))] if others else None
