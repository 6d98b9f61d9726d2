"""A stage is declared once: name, version, needs, the settings it reads, the function that does the work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_catalog.errors import UserError
from data_catalog.record import Record, Summary
from data_catalog.settings import Settings

__all__ = ["Input", "Need", "Partition", "Stage", "Summary", "Work"]


class Partition(NamedTuple):
    """What one stage computes, caches and reruns as a unit."""

    stage: str
    style: str | None = None
    block: int | None = None

    @property
    def key(self) -> str:
        """`edit/zombie/0003`, `portraits/0003`, `prompts/zombie` or `dataset/all`: the path in the store."""
        block = None if self.block is None else f"{self.block:04d}"
        where = [part for part in (self.style, block) if part is not None]
        return "/".join([self.stage, *(where or ["all"])])

    @classmethod
    def parse(cls, key: str) -> Partition:
        """The partition of a key. Style slugs start with a letter, so that a number is always a block."""
        stage, *rest = key.strip("/").split("/")
        block = int(rest.pop()) if rest and rest[-1].isdigit() else None
        if rest == ["all"] and block is None:
            rest = []
        if not stage or len(rest) > 1 or (not rest and block is None and not key.endswith("/all")):
            forms = "stage/style/block, stage/style, stage/block or stage/all"
            raise UserError(f"'{key}' is not a partition", expected=forms)
        return cls(stage, rest[0] if rest else None, block)


class Need(NamedTuple):
    """An upstream stage: its partitions of the same style and block; all of them along what only it has.

    With `part`, only `record.parts[block]` of the upstream partition counts: a change to another block of it
    is not seen.
    """

    stage: str
    part: bool = False


@dataclass
class Input:
    """One upstream partition, as a stage meets it. `digest` is the part's digest where the need is a part."""

    partition: Partition
    folder: Path
    digest: str
    record: Record


@dataclass
class Work:
    """All that a stage's function may use: it reads `inputs` and `sources` and writes into `folder` alone.

    A stage with `resumes` also keeps checkpoints in `working`: what an attempt leaves there, the next one finds.
    It goes when the record is written, and is no part of the partition.
    """

    partition: Partition
    inputs: dict[str, list[Input]]
    settings: Settings
    sources: dict[str, Path]
    folder: Path
    root: Path = field(default_factory=Path)  # the data root, for paths that are stored relative to it
    working: Path = field(default_factory=Path)

    def input(self, stage: str) -> Input:
        """The single partition of an upstream stage."""
        (only,) = self.inputs[stage]
        return only


def no_settings(settings: Settings, partition: Partition) -> dict[str, Any]:
    return {}


def no_sources(settings: Settings, partition: Partition) -> dict[str, Path]:
    return {}


def no_models(settings: Settings) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Stage:
    """A step of the workflow.

    `reads` returns exactly the settings (as JSON values) that change the bytes of a partition, `sources` the
    outside files whose content does, `models` the names of the weights. Its author bumps `version` when the
    meaning changes. A stage with `resumes` finds in `work.working` what an interrupted attempt left there.
    """

    name: str
    version: int
    run: Callable[[Work], Summary]
    split_by: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    reads: Callable[[Settings, Partition], dict[str, Any]] = no_settings
    sources: Callable[[Settings, Partition], dict[str, Path]] = no_sources
    models: Callable[[Settings], tuple[str, ...]] = no_models
    resumes: bool = False

    def partitions(self, styles: list[str], blocks: list[int]) -> list[Partition]:
        """All partitions of this stage, in order of style, then block."""
        over_styles: list[str | None] = [*styles] if "style" in self.split_by else [None]
        over_blocks: list[int | None] = [*blocks] if "block" in self.split_by else [None]
        return [Partition(self.name, style, block) for style in over_styles for block in over_blocks]
