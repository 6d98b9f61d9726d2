"""Steps of the plan, one a partition, and the relation between partitions of different stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from data_catalog.plan.reasons import Reason
from data_catalog.store.catalog import Entry
from data_catalog.store.stage import Need, Partition

State = Literal["cached", "run", "maybe", "done", "failed", "blocked"]


@dataclass(slots=True)
class Step:
    """Partition in the plan.

    `entry` is what is made, when `cached` or `done`. For a `run`, it is the record under the same fingerprint
    that is not good enough, if any. `near` is the record that the reasons compare with: the one that matches or
    may match (then it `fits`), else the newest. `done`, `failed` and `blocked` (an input failed) come while running.
    """

    partition: Partition
    key: str
    state: State = "maybe"
    reasons: list[Reason] = field(default_factory=list)
    fingerprint: str | None = None
    entry: Entry | None = None
    near: Entry | None = None
    fits: bool = False
    note: str = ""

    @property
    def made(self) -> bool:
        return self.state in ("cached", "done")


def digest_for(entry: Entry, partition: Partition, need: Need) -> str:
    if not need.part:
        return entry.digest
    assert partition.place is not None, f"{partition.key} needs a part, and has no block"
    return entry.part(partition.place)


def along(partition: Partition, dimensions: set[str]) -> tuple[str | None, int | None, int]:
    """A partition's place along some of its dimensions."""
    style = partition.style if "style" in dimensions else None
    block = partition.block if "block" in dimensions else None
    return style, block, partition.attempt if "attempt" in dimensions else 0


def in_order(partition: Partition) -> tuple[str, int, int]:
    return partition.style or "", partition.block or 0, partition.attempt


def named(key: str, names: Sequence[str]) -> list[str]:
    """Return those of the names (stages, stage/style, partitions) that stand for a partition."""
    return [name for name in names if key == name or key.startswith(name + "/")]
