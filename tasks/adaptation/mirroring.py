"""The pairs a second time, seen in a mirror: a student that meets ten portraits and no others learns them by heart.

Portrait and edited picture are mirrored and the teacher lifts the result, so that each is a pair like any other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from data_catalog.settings import Settings
from data_catalog.shards import Sample, write_shard
from models.camera import mirror_label
from models.live3d import Live3D
from models.pixels import signed
from tasks.adaptation.lessons import make_sample
from tasks.teach import SHARD
from tasks.training.data import SampleRef, read_fields

FOLDER = "mirrored"


def mirror(pairs: Sequence[SampleRef], teacher: Live3D, settings: Settings, working: Path) -> list[SampleRef]:
    """Write the mirrored pairs below `working` and return them; `pairs` come by key."""
    folder = working / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # made anew in seconds; a killed run may have left half of it
    folder.mkdir(parents=True)
    turned = [_turn(pair) for pair in pairs]
    entries = write_shard(folder / SHARD, _samples(pairs, turned, teacher, settings))
    return [replace(each, shard=folder / SHARD, entry=entry) for each, entry in zip(turned, entries, strict=True)]


def _turn(pair: SampleRef) -> SampleRef:
    """What is known of the mirrored pair. It shows nobody of the dataset, and serves as no image prompt."""
    camera = mirror_label(torch.from_numpy(pair.camera)[None])[0].float().numpy()
    name = f"{pair.portrait_id}-mirrored"
    return replace(pair, key=f"{pair.key}-mirrored", portrait_id=name, camera=camera, image_prompt=False)


def _samples(
    pairs: Sequence[SampleRef], turned: Sequence[SampleRef], teacher: Live3D, settings: Settings
) -> Iterator[Sample]:
    device = settings.run.device
    for pair, mirrored in zip(pairs, turned, strict=True):
        fields = read_fields(pair)
        portrait, edited = (np.ascontiguousarray(each[:, ::-1]) for each in (fields.portrait, fields.pseudo_label))
        views = mirror_label(torch.from_numpy(fields.view_cameras.copy())).float().numpy()
        with torch.no_grad():
            triplane = teacher.encode(signed(edited[None], device))
        yield make_sample(mirrored, portrait, edited, triplane, teacher.render, views, settings.teach)
