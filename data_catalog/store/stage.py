"""Declaration of a stage: name, version, needs, settings, and the function that does the work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from data_catalog.store.record import Record, Summary

__all__ = ["Input", "Need", "Partition", "Stage", "Summary", "Work"]

BASELINE = "baseline"  # room of the stages of the other systems
PLACE = re.compile(r"(?P<block>\d+)(-a(?P<attempt>[1-9]\d*))?")


class Partition(NamedTuple):
    """Unit of work of a stage: computed, cached and rerun as a whole.

    `attempt` counts how often the block was made again with new seeds because its style was short of samples.
    """

    stage: str
    style: str | None = None
    block: int | None = None
    attempt: int = 0

    @property
    def key(self) -> str:
        """`edit/zombie/0003`, `portraits/0003`, `prompts/zombie` or `dataset/all`: the path in the store."""
        where = [part for part in (self.style, self.place) if part is not None]
        return "/".join([self.stage, *(where or ["all"])])

    @property
    def place(self) -> str | None:
        """The block, with its attempt if that is not the first: `0003`, `0003-a1`."""
        if self.block is None:
            return None
        return f"{self.block:04d}" + (f"-a{self.attempt}" if self.attempt else "")

    @classmethod
    def parse(cls, key: str) -> Partition:
        """The partition of a key. Style slugs start with a letter, so that a number is always a block."""
        stage, *rest = key.strip("/").split("/")
        if stage == BASELINE and rest:  # a stage for each method: `baseline/pti-styleclip/zombie`
            stage = f"{stage}/{rest.pop(0)}"
        place = PLACE.fullmatch(rest[-1]) if rest else None
        if place:
            rest.pop()
        if rest == ["all"] and not place:
            rest = []
        if not stage or len(rest) > 1 or (not rest and not place and not key.endswith("/all")):
            forms = "stage/style/block, stage/style, stage/block or stage/all"
            raise UserError(f"'{key}' is not a partition", expected=forms)
        style, block = (rest[0] if rest else None), (int(place["block"]) if place else None)
        return cls(stage, style, block, int(place["attempt"] or 0) if place else 0)


class Need(NamedTuple):
    """Upstream stage: its partitions of the same style, block and attempt, and all along its own dimensions.

    With `part`, only `record.parts[place]` of the upstream partition counts: its other blocks may change.
    """

    stage: str
    part: bool = False


@dataclass
class Input:
    """Upstream partition as a stage's input. `digest` is the part's digest where the need is a part."""

    partition: Partition
    folder: Path
    digest: str
    record: Record


@dataclass
class Work:
    """Arguments of a stage's function: it reads `inputs` and `sources` and writes into `folder` alone.

    A stage with `resumes` also keeps checkpoints in `working`, where the next attempt finds them. That folder is not
    part of the partition and is removed once the record is written. `earlier` lists the partition as it was made by
    the same code and weights from other settings or inputs: what is the same in it need not be made again.
    """

    partition: Partition
    inputs: dict[str, list[Input]]
    settings: Settings
    sources: dict[str, Path]
    folder: Path
    root: Path = field(default_factory=Path)  # the data root, for paths that are stored relative to it
    working: Path = field(default_factory=Path)
    earlier: Callable[[], list[Input]] = list

    def input(self, stage: str) -> Input:
        """Return the single partition of an upstream stage."""
        (only,) = self.inputs[stage]
        return only


@dataclass(frozen=True)
class Stage:
    """Step of the workflow.

    `reads` returns exactly the settings (as JSON values) that change the bytes of a partition, `sources` the
    outside files whose content does, `models` the names of the weights. Raise `version` when the meaning of
    the output changes. A stage with `resumes` finds the files of an interrupted attempt in `work.working`.
    For messages, `what` names the things that its records count, and `command` the command that makes it.
    """

    name: str
    version: int
    run: Callable[[Work], Summary]
    split_by: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    reads: Callable[[Settings, Partition], dict[str, Any]] = lambda settings, partition: {}
    sources: Callable[[Settings, Partition], dict[str, Path]] = lambda settings, partition: {}
    models: Callable[[Settings], tuple[str, ...]] = lambda settings: ()
    resumes: bool = False
    what: str = "samples"
    command: str | None = None

    def partitions(self, styles: list[str], blocks: list[int]) -> list[Partition]:
        """All partitions of this stage, in order of style, then block; further attempts come while a plan is made."""
        over_styles: list[str | None] = [*styles] if "style" in self.split_by else [None]
        over_blocks: list[int | None] = [*blocks] if "block" in self.split_by else [None]
        return [Partition(self.name, style, block) for style in over_styles for block in over_blocks]
