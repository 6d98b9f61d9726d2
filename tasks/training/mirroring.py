"""Mirrored samples: they double the few portraits that a student would otherwise learn by heart.

Portrait, edited picture and views are mirrored, and the teacher lifts the mirrored picture. The result is an ordinary
sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.samples.shard_index import read_index, write_index
from data_catalog.samples.shards import Sample, write_shard
from models.camera import mirror_label
from models.pixels import signed
from models.three_d.live3d import Live3D
from tasks.teach import SHARD, Lesson
from tasks.training.data import Fields, SampleRef, read_fields
from tasks.training.lessons import make_sample

FOLDER = "mirrored"


def learned_samples(
    samples: Sequence[SampleRef], teacher: Live3D, settings: Settings, working: Path
) -> list[SampleRef]:
    """Return the train split of a dataset and, with `distill.mirror`, its mirrored samples."""
    learned = [sample for sample in samples if sample.split == "train"]
    if not learned:
        raise UserError("the dataset has no training samples", hint="more portraits: portraits.count")
    return learned + (mirror(learned, teacher, settings, working) if settings.distill.mirror else [])


def mirror(samples: Sequence[SampleRef], teacher: Live3D, settings: Settings, working: Path) -> list[SampleRef]:
    """Mirror the samples; the shard is written below `working`, by the first process if there are several."""
    folder = working / FOLDER
    turned = {each.key: (each, _turn(each)) for each in samples}
    pairs = sorted(turned.values(), key=lambda pair: pair[1].key)  # order of a shard
    with PartialState(cpu=settings.run.device == "cpu").main_process_first():
        if not (folder / SHARD).exists():  # an interrupted run may have written it; if it exists, it is whole
            folder.mkdir(parents=True, exist_ok=True)
            write_index(folder, write_shard(folder / SHARD, _samples(pairs, teacher, settings)))
        entries = read_index(folder / SHARD)
    return [replace(new, shard=folder / SHARD, entry=entries[new.key]) for _, new in turned.values()]


def _turn(sample: SampleRef) -> SampleRef:
    """Describe the mirrored sample. It is a portrait of its own, of the same person, and serves as no image prompt."""
    camera = mirror_label(torch.from_numpy(sample.camera)[None])[0].float().numpy()
    name = f"{sample.portrait_id}-mirrored"
    return replace(sample, key=f"{sample.key}-mirrored", portrait_id=name, camera=camera, image_prompt=False)


def _samples(pairs: Sequence[tuple[SampleRef, SampleRef]], teacher: Live3D, settings: Settings) -> Iterator[Sample]:
    together = settings.distill.batch_size
    for start in range(0, len(pairs), together):
        some = pairs[start : start + together]
        read = [read_fields(sample) for sample, _ in some]
        edited = np.stack([fields.pseudo_label[:, ::-1] for fields in read])
        with torch.no_grad():
            triplanes = teacher.encode(signed(edited, settings.run.device)).float().cpu().numpy()
        for (_, mirrored), fields, picture, triplane in zip(some, read, edited, triplanes, strict=True):
            lesson = _mirror_lesson(fields, picture, triplane)
            yield make_sample(mirrored, _flip(fields.portrait), picture, lesson, settings.teach)


def _mirror_lesson(fields: Fields, picture: np.ndarray, triplane: np.ndarray) -> Lesson:
    """Mirror the teacher's views and depths: rendering them again would cost most of the time.

    picture: (H, W, 3) uint8, mirrored.  triplane: (3*C, h, w), of that picture.
    """
    own = picture if fields.own_view is None else _flip(fields.own_view)  # None: made before it was stored
    cameras = mirror_label(torch.from_numpy(fields.view_cameras.copy())).float().numpy()
    return Lesson(triplane, own, _flip(fields.views), cameras, np.ascontiguousarray(fields.depths[..., ::-1]), {})


def _flip(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, 3), left and right exchanged."""
    return np.ascontiguousarray(pictures[..., ::-1, :])
