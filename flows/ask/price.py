"""Price of a plan's waiting partitions, from past records made on the same kind of device."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.plan.plan import Plan
from data_catalog.plan.steps import Step
from data_catalog.store.catalog import Entry
from data_catalog.store.stage import Stage
from flows.ask.forecast import count_tested, forecast, operations

RECENT = 200  # newest records of a stage that are used
LOOKED_INTO = 40  # records that are read, to find those made with the same settings
TOKENS_PER_REQUEST, TOKENS_PER_PROMPT = 250, 25  # estimates for as long as no record holds the tokens of a style


@dataclass(frozen=True)
class Price:
    """Price of some partitions. `seconds` and `bytes` leave out the stages in `unknown`: no record on such a device."""

    partitions: int = 0
    samples: int = 0
    seconds: float = 0.0
    bytes: int = 0
    llm_tokens: int = 0
    unknown: tuple[str, ...] = ()
    forecast: tuple[str, ...] = ()  # stages without a record that are priced by counted operations
    scaled: tuple[str, ...] = ()  # stages priced by records of other settings, with the operations as the scale

    def __add__(self, other: "Price") -> "Price":
        return Price(
            self.partitions + other.partitions,
            self.samples + other.samples,
            self.seconds + other.seconds,
            self.bytes + other.bytes,
            self.llm_tokens + other.llm_tokens,
            _joined(self.unknown, other.unknown),
            _joined(self.forecast, other.forecast),
            _joined(self.scaled, other.scaled),
        )

    def document(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "seconds": round(self.seconds, 1),
            "unknown": list(self.unknown),
            "forecast": list(self.forecast),
            "scaled": list(self.scaled),
        }


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return (*first, *(stage for stage in second if stage not in first))


@dataclass(frozen=True)
class _Rate:
    """Cost of one sample of a stage, or of one partition where a stage has only one."""

    seconds: float
    bytes: float
    samples: float  # of a partition, in the mean
    scaled: bool = False  # from records of other settings, by the operations that these and those take


class Prices:
    """Prices of a plan's stages."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._expected: dict[str, int] = {}
        self._rates: dict[str, _Rate | None] = {}

    def price(self, stage: Stage, state: str) -> Price:
        """Return the price of all partitions of the stage in this state (`run` or `maybe`)."""
        steps = [step for step in self.plan.by_stage[stage.name] if step.state == state]
        if not steps:
            return Price()
        samples = sum(self.expected(step, stage) for step in steps)
        tokens = self._tokens(steps) if stage.name == "prompts" else 0
        rate = self._rate(stage)
        guess = self._guess(stage) if rate is None else None
        rate = rate or guess
        if rate is None:
            return Price(len(steps), samples, llm_tokens=tokens, unknown=(stage.name,))
        units = samples if stage.split_by else len(steps)
        workers = min(self.plan.settings.run.workers, len(steps)) if stage.split_by else 1
        return Price(
            len(steps),
            samples,
            rate.seconds * units / workers,
            round(rate.bytes * units),
            tokens,
            forecast=(stage.name,) if guess is not None else (),
            scaled=(stage.name,) if rate.scaled else (),
        )

    def _guess(self, stage: Stage) -> _Rate | None:
        """Forecast by counted operations, for networks of the paper's size, where nothing was ever measured."""
        settings = self.plan.settings
        guess = forecast(stage.name, settings, count_tested(settings, self._portraits, self._styles))
        return None if guess is None else _Rate(guess.seconds, guess.bytes, 0.0)

    @cached_property
    def _portraits(self) -> int:
        from tasks.portraits import count_portraits

        return count_portraits(self.plan.settings)

    @cached_property
    def _styles(self) -> int:
        return len({step.partition.style for step in self.plan.steps.values() if step.partition.style})

    def expected(self, step: Step, stage: Stage) -> int:
        """Samples that a partition will hold: by the settings, its own past, its stage's past, or its inputs."""
        if step.key not in self._expected:
            self._expected[step.key] = self._expect(step, stage)
        return self._expected[step.key]

    def _expect(self, step: Step, stage: Stage) -> int:
        settings = self.plan.settings
        if step.made and step.entry is not None:
            return step.entry.samples
        if stage.name == "portraits":
            size = settings.portraits.block_size
            return max(0, min(size, self._portraits - (step.partition.block or 0) * size))
        if stage.name == "prompts":
            return settings.prompts.train + settings.prompts.test
        if step.near is not None:
            return step.near.samples
        inputs = [self._expected_inputs(step, need.stage) for need in stage.needs if need.stage != "prompts"]
        if inputs:
            # A partition holds at most as many samples as its inputs; rejections are not foreseen.
            by_editor = stage.name == "edit" and settings.edit.source == "editor"
            return max(inputs) * (settings.edit.prompts_per_portrait if by_editor else 1)
        rate = self._rate(stage)
        return round(rate.samples) if rate is not None else 0

    def _expected_inputs(self, step: Step, upstream: str) -> int:
        """Samples upstream of a partition; of an input that has more than the partition's block, its share."""
        stage = next(stage for stage in self.plan.stages if stage.name == upstream)
        steps = self.plan.upstream(step, upstream)
        total = sum(self.expected(each, stage) for each in steps)
        if step.partition.block is not None and "block" not in stage.split_by:
            return -(-total // max(1, self._blocks))
        return total

    @cached_property
    def _blocks(self) -> int:
        return len({step.partition.block for step in self.plan.steps.values() if step.partition.block is not None})

    def _rate(self, stage: Stage) -> _Rate | None:
        if stage.name not in self._rates:
            past = self._past(stage)
            units = sum(e.samples + e.rejected for e, _ in past) if stage.split_by else len(past)
            samples = fmean(e.samples for e, _ in past) if past else 0.0
            seconds, size = sum(e.seconds * scale for e, scale in past), sum(e.bytes for e, _ in past)
            scaled = any(scale != 1.0 for _, scale in past)
            rate = _Rate(seconds / max(units, 1), size / max(units, 1), samples, scaled) if past else None
            self._rates[stage.name] = rate
        return self._rates[stage.name]

    def _past(self, stage: Stage) -> list[tuple[Entry, float]]:
        """The newest records on this kind of device, of those with the present settings if there are any.

        Each comes with the operations of the present settings, as a multiple of those that it took.
        """
        found = self._entries.get(stage.name, [])
        found = sorted(found, key=lambda entry: entry.created, reverse=True)[:RECENT]
        same, other = [], []
        for entry in found[:LOOKED_INTO]:
            step = self.plan.steps.get(entry.partition)
            try:
                then = self.plan.made_from(entry).get("settings") or {}
            except (OSError, ValueError, UserError):
                continue  # only an estimate: a record deleted meanwhile is skipped
            now = json.loads(json.dumps(stage.reads(self.plan.settings, step.partition))) if step is not None else then
            if step is not None and then == now:
                same.append((entry, 1.0))
            else:
                other.append((entry, operations(stage.name, now) / operations(stage.name, then)))
        return same or other

    @cached_property
    def _entries(self) -> dict[str, list[Entry]]:
        """Records that the index knows, by stage."""
        device, by_stage = self.plan.settings.run.device.partition(":")[0], defaultdict(list)
        for entries in self.plan.catalog.entries.values():
            for entry in entries.values():
                if entry.device.partition(":")[0] == device:
                    by_stage[entry.stage].append(entry)
        return by_stage

    def _tokens(self, steps: Sequence[Step]) -> int:
        """Estimate the tokens that a language model will read and write for these styles, from past records."""
        settings = self.plan.settings.prompts
        if settings.backend != "openai":
            return 0
        past = [count for entry in self._entries.get("prompts", [])[:RECENT] if (count := self._used(entry))]
        if past:
            return round(fmean(past) * len(steps))
        return len(steps) * (TOKENS_PER_REQUEST + (settings.train + settings.test) * TOKENS_PER_PROMPT)

    def _used(self, entry: Entry) -> int:
        """Return the tokens that one style's prompts took; 0 without a language model."""
        try:
            text = (self.plan.catalog.folder(entry) / "llm.json").read_text(encoding="utf-8")
            return sum(int(each["tokens_in"]) + int(each["tokens_out"]) for each in json.loads(text))
        except (OSError, ValueError, KeyError, TypeError):
            return 0  # only an estimate
