"""Rehearsal of an adapting student: its own edits of the pairs' portraits into styles that it knows.

They are ordinary samples with the unadapted student in place of both teachers. The ordinary losses keep the old styles
on them while the pairs teach the new one. No old portrait is needed, only the old prompts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from data_catalog.config.settings import Settings, TeachSettings
from data_catalog.samples.keys import sample_key
from data_catalog.samples.seeds import derive
from data_catalog.samples.shards import Sample, write_shard
from models.pixels import signed
from tasks.distill import Networks
from tasks.teach import SHARD
from tasks.training.data import SampleRef, read_fields
from tasks.training.lessons import look, make_sample
from tasks.training.reading import text_tokens

if TYPE_CHECKING:
    from models.three_d.student import Student

FOLDER = "rehearsal"


def rehearse(
    student: Student,
    pairs: Sequence[SampleRef],
    old: Sequence[SampleRef],
    networks: Networks,
    settings: Settings,
    working: Path,
) -> list[SampleRef]:
    """Write the rehearsed samples below `working` and return them; `old` are samples of the known styles."""
    wishes = choose_wishes(pairs, old, settings)
    if not wishes:
        return []
    folder = working / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # made anew in seconds; a killed run may have left a part of it
    folder.mkdir(parents=True)
    entries = write_shard(folder / SHARD, _samples(student, wishes, networks, settings.teach))
    return [replace(wish, shard=folder / SHARD, entry=entry) for wish, entry in zip(wishes, entries, strict=True)]


def choose_wishes(pairs: Sequence[SampleRef], old: Sequence[SampleRef], settings: Settings) -> list[SampleRef]:
    """For each pair's portrait, training prompts of as many old styles as are to be rehearsed; by key."""
    prompts: dict[str, dict[str, int]] = {}
    for sample in old:
        if sample.prompt_split == "train":
            prompts.setdefault(sample.style, {})[sample.prompt] = sample.prompt_number
    wishes = {}
    for pair in pairs:
        rng = np.random.default_rng(derive("rehearsal", settings.adapt.seed, pair.portrait_id))
        for style in rng.permutation(sorted(prompts))[: settings.adapt.rehearsals]:
            text, number = sorted(prompts[str(style)].items())[int(rng.integers(len(prompts[str(style)])))]
            key = sample_key(pair.portrait_id, str(style), number)
            wishes[key] = replace(pair, key=key, style=str(style), prompt=text, image_prompt=False)
    return [wishes[key] for key in sorted(wishes)]


def _samples(
    student: Student, wishes: Sequence[SampleRef], networks: Networks, settings: TeachSettings
) -> Iterator[Sample]:
    device = str(next(student.parameters()).device)
    for wish in wishes:
        fields = read_fields(wish)  # of the pair: its portrait and the cameras it is seen from
        with torch.no_grad():
            tokens = text_tokens(student, networks.clip, [wish.prompt]).to(device)
            triplane = student.encode(signed(fields.portrait[None], device), tokens, "text")
        lesson = look(triplane, student.render, wish.camera, fields.view_cameras)
        yield make_sample(wish, fields.portrait, lesson.own_view, lesson, settings)
