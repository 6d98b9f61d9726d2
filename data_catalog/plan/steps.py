"""Partitions in the plan, and how those of different stages belong together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_catalog.plan.judge import FAILED, State, Verdict
from data_catalog.plan.reasons import Reason
from data_catalog.store.catalog import Entry
from data_catalog.store.stage import Need, Partition, Stage

NOT_JUDGED = Verdict()


@dataclass(slots=True)
class Step:
    """Partition in the plan, with the present verdict on it."""

    partition: Partition
    key: str
    verdict: Verdict = NOT_JUDGED

    @property
    def made(self) -> bool:
        return self.verdict.state in ("cached", "done")

    @property
    def state(self) -> State:
        return self.verdict.state

    @property
    def reasons(self) -> tuple[Reason, ...]:
        return self.verdict.reasons

    @property
    def fingerprint(self) -> str | None:
        return self.verdict.fingerprint

    @property
    def entry(self) -> Entry | None:
        return self.verdict.entry

    @property
    def near(self) -> Entry | None:
        return self.verdict.near

    @property
    def fits(self) -> bool:
        return self.verdict.fits

    @property
    def failure(self) -> str:
        """Return the message of its last attempt, in this run or an earlier one, if that failed; else nothing."""
        if self.state == "failed":
            return self.note
        told = [reason.what for reason in self.reasons if reason.what.startswith(FAILED)]
        return told[0].removeprefix(FAILED) if told else ""

    @property
    def note(self) -> str:
        return self.verdict.note


class Steps:
    """All steps by key and by stage, in order, and the way from a step to those upstream of it."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.by_key: dict[str, Step] = {}
        self.by_stage: dict[str, list[Step]] = {stage.name: [] for stage in stages}
        self._stages = {stage.name: stage for stage in stages}
        self._places: dict[tuple[str, str], dict[tuple[str | None, int | None, int], list[Step]]] = {}

    def add(self, stage_name: str, partitions: Iterable[Partition]) -> list[Step]:
        """Take in partitions of a stage; returns their steps, in order."""
        added = [Step(place, place.key) for place in sorted(partitions, key=_in_order)]
        mine = self.by_stage[stage_name]
        mine += added
        if len(added) < len(mine):
            mine.sort(key=lambda step: _in_order(step.partition))
        self.by_key.update({step.key: step for step in added})
        self._places = {pair: places for pair, places in self._places.items() if pair[1] != stage_name}
        return added

    def upstream(self, step: Step, stage_name: str) -> list[Step]:
        """The steps of another stage that agree with this one on the dimensions both stages have."""
        stage, upstream = self._stages[step.partition.stage], self._stages[stage_name]
        shared = set(stage.split_by) & set(upstream.split_by)
        places = self._places.get((stage.name, stage_name))
        if places is None:
            places = self._places[(stage.name, stage_name)] = {}
            for up in self.by_stage[stage_name]:
                places.setdefault(_along(up.partition, shared), []).append(up)
        return places.get(_along(step.partition, shared), [])


def digest_for(entry: Entry, partition: Partition, need: Need) -> str:
    """Digest of what a partition needs of an upstream one: of all of it, or of the part for its block."""
    if not need.part:
        return entry.digest
    assert partition.place is not None, f"{partition.key} needs a part, and has no block"
    return entry.part(partition.place)


def named(key: str, names: Sequence[str]) -> list[str]:
    """Select the names (stages, stage/style, partitions) that stand for a partition."""
    return [name for name in names if key == name or key.startswith(name + "/")]


def _along(partition: Partition, dimensions: set[str]) -> tuple[str | None, int | None, int]:
    """A partition's place along some of its dimensions."""
    style = partition.style if "style" in dimensions else None
    block = partition.block if "block" in dimensions else None
    return style, block, partition.attempt if "attempt" in dimensions else 0


def _in_order(partition: Partition) -> tuple[str, int, int]:
    return partition.style or "", partition.block or 0, partition.attempt
