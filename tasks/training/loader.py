"""Samples for the steps of a training: cached in memory while they fit, otherwise read ahead on threads.

A read depends only on the sample and the requested fields: batches are identical for any number of threads and cache
size. A step's samples follow from its number (see `Sampler`). A run that resumes in the middle of an epoch, and each
process of several, reads only its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from data_catalog.samples.shards import bytes_to_read
from tasks.training.data import OWN_VIEW, Fields, SampleRef, read_fields, view_name

THREADS = 4
ROUND = 1 << 16  # bytes; buffer sizes are multiples of it, so that samples of similar size share them


class Wanted(NamedTuple):
    """Fields that a training reads beside the portrait."""

    pseudo_label: bool
    triplane: bool
    views: bool
    own_view: bool = False

    def names(self, sample: SampleRef, views: Sequence[int] | None = None) -> tuple[str, ...]:
        """Return the fields to read of a sample; of views with a field each, only the given ones, or all."""
        stored = sample.entry.fields
        names = {"portrait.png", *(["pseudo_label.png"] if self.pseudo_label else [])}
        if self.triplane:
            names |= {name for name in stored if name.startswith("triplane")}
        if self.own_view:
            names |= stored.keys() & set(OWN_VIEW)
        if self.views:
            names |= {"view_cameras.npy", "depths.npy", "views.npy"} & stored.keys()
            drawn = {name for name in stored if name.startswith("view_") and name.endswith(".jpg")}
            names |= drawn if views is None else drawn & {view_name(view) for view in views}
        return tuple(sorted(names))


class Buffers:
    """Reusable buffers. On a GPU they are pinned, and wait until copies from them are done."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._free: list[tuple[np.ndarray, Any]] = []
        self._lock = threading.Lock()
        self.made = 0

    def take(self, size: int) -> np.ndarray:
        """(n,) uint8, n at least `size`."""
        with self._lock:
            fitting = (place for place, (buffer, _) in enumerate(self._free) if len(buffer) >= size)
            # A buffer that is too small is replaced, so that there are never more than were in use at once.
            buffer, copied = self._free.pop(next(fitting, 0)) if self._free else (np.empty(0, np.uint8), None)
            self.made += len(buffer) < size
        if copied is not None:
            copied.synchronize()
        if len(buffer) < size:
            rounded = -(-size // ROUND) * ROUND
            buffer = torch.empty(rounded, dtype=torch.uint8, pin_memory=self._pinned).numpy()
        return buffer

    def give_back(self, buffers: Sequence[np.ndarray]) -> None:
        """Take buffers back; on a GPU, once the copies started so far are done."""
        copied = None
        if self._pinned and buffers:
            copied = torch.cuda.Event()
            copied.record()
        with self._lock:
            self._free += [(buffer, copied) for buffer in buffers]


class Loader:
    """Loader of samples: from the cache, from reads under way, or read now."""

    def __init__(self, wanted: Wanted, memory_mb: int, device: str = "cpu", threads: int = THREADS) -> None:
        self.wanted = wanted
        self.buffers = Buffers(pinned=device.startswith("cuda"))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
        self._kept: dict[str, Fields] = {}
        self._free = memory_mb * 2**20
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, tuple[str, ...]], list[Future[_Read]]] = {}
        self._lent: list[np.ndarray] = []

    def read_ahead(self, samples: Sequence[SampleRef], views: Sequence[Sequence[int]] | None) -> None:
        """Start reading the samples of a coming step. Without views, the step compares none."""
        for sample, names in self._asked(samples, views):
            if sample.key not in self._kept:
                read = self._pool.submit(self._read, sample, names)
                self._under_way.setdefault((sample.key, names), []).append(read)

    def take(self, samples: Sequence[SampleRef], views: Sequence[Sequence[int]] | None) -> list[Fields]:
        """Return the samples of a step. Fields that are not cached lie in buffers that the next call reuses."""
        self.buffers.give_back(self._lent)
        self._lent = []
        return [self._take(sample, names) for sample, names in self._asked(samples, views)]

    def forget(self) -> None:
        """Give up what is read ahead: no step takes it."""
        for reads in self._under_way.values():
            for read in reads:
                buffer = None if read.cancel() else read.result().buffer
                self._lent += [] if buffer is None else [buffer]
        self._under_way = {}

    def whole(self, sample: SampleRef) -> Fields:
        """Return all wanted fields of one sample, outside the steps."""
        return self._kept.get(sample.key) or read_fields(sample, self._whole_names(sample))

    def _whole_names(self, sample: SampleRef) -> tuple[str, ...]:
        return self.wanted._replace(pseudo_label=True, own_view=True).names(sample)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _asked(
        self, samples: Sequence[SampleRef], views: Sequence[Sequence[int]] | None
    ) -> list[tuple[SampleRef, tuple[str, ...]]]:
        wanted = self.wanted if views is not None else self.wanted._replace(views=False, own_view=False)
        drawn = views if views is not None else [()] * len(samples)
        return [(sample, wanted.names(sample, own)) for sample, own in zip(samples, drawn, strict=True)]

    def _take(self, sample: SampleRef, names: tuple[str, ...]) -> Fields:
        waiting = self._under_way.get((sample.key, names), [])
        kept = self._kept.get(sample.key)
        if waiting:
            read = waiting.pop(0).result()
            if not waiting:
                del self._under_way[sample.key, names]
        elif kept is not None:
            return kept
        else:
            read = self._read(sample, names)
        if read.buffer is not None:
            self._lent.append(read.buffer)
        return read.fields

    def _read(self, sample: SampleRef, names: tuple[str, ...]) -> _Read:
        """Read a whole sample and cache it while there is room, else only the fields that a step asks for."""
        with self._lock:
            kept, keep = self._kept.get(sample.key), sample.entry.bytes <= self._free
        if kept is not None:
            return _Read(kept, None)
        if keep:
            fields = read_fields(sample, self._whole_names(sample))
            with self._lock:
                if sample.key not in self._kept:
                    self._kept[sample.key] = fields
                    self._free -= fields.bytes
            return _Read(fields, None)
        buffer = self.buffers.take(bytes_to_read(sample.entry, names))
        return _Read(read_fields(sample, names, buffer), buffer)


class _Read(NamedTuple):
    fields: Fields
    buffer: np.ndarray | None  # None: the fields are cached
