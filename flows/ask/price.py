"""Price of a plan's waiting partitions, from past records made on the same kind of device."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any, NamedTuple

from data_catalog.config.errors import UserError
from data_catalog.plan.plan import Plan
from data_catalog.plan.steps import Step
from data_catalog.store.catalog import Entry
from data_catalog.store.stage import BASELINE, Stage
from flows.ask.forecast import count_tested, forecast
from flows.ask.work import work_of
from tasks.progress import tell_time
from tasks.sources.names import counted

RECENT = 200  # newest records of a stage that are used
LOOKED_INTO = 40  # records that are read, to find those made with the same settings
FIRST = 2.0  # times the usual seconds of a partition; one that took longer was the first of its worker
KINDS = 2  # edits of a portrait by another system: by words and by a picture
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
    scaled: tuple[str, ...] = ()  # stages priced by records of other settings, scaled by their work

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


def tell_price(run: Price, most: Price) -> str | None:
    """Say what will run and what may run at most, with the time and the disk it takes; None where that is nothing."""
    if not most.partitions:
        return None
    told = f"to run: {_told(run)}" + (f"; at most {_told(most)}" if most.partitions > run.partitions else "")
    if not most.seconds:
        return f"{told} (time not known before a first run on this kind of device)"
    other = {
        "~ {}: measured with other settings, scaled by their work": most.scaled,
        "~ {}: a forecast, never run on this kind of device": most.forecast,
        "without {}: never run on this kind of device": most.unknown,
    }
    notes = [text.format(", ".join(stages)) for text, stages in other.items() if stages]
    return told + (f" ({'; '.join(notes)})" if notes else "")


def _told(price: Price) -> str:
    words = [counted(price.partitions, "partition")]
    words += [f"{price.llm_tokens} LLM tokens"] if price.llm_tokens else []
    if price.seconds:
        guessed = price.scaled or price.forecast
        words += [f"{'~' if guessed else 'about '}{tell_time(price.seconds)}", f"{price.bytes / 1e6:.1f} MB"]
    return ", ".join(words)


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return (*first, *(stage for stage in second if stage not in first))


@dataclass(frozen=True)
class _Rate:
    """Cost of one sample of a stage, or of one partition where a stage has only one."""

    seconds: float
    start: float  # of a worker, seconds
    bytes: float
    scaled: bool = False  # from records of other settings, by the work that these and those make


class _Made(NamedTuple):
    """Record of a stage, beside the present settings.

    work, bytes: how many times as much these make.  alike: also in what is not counted.  same: the same work.
    """

    entry: Entry
    work: float
    bytes: float
    alike: bool
    same: bool


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
            rate.start + rate.seconds * units / workers,
            round(rate.bytes * units),
            tokens,
            forecast=(stage.name,) if guess is not None else (),
            scaled=(stage.name,) if rate.scaled else (),
        )

    def _guess(self, stage: Stage) -> _Rate | None:
        """Forecast by counted operations, for networks of the paper's size, where nothing was ever measured."""
        settings = self.plan.settings
        guess = forecast(stage.name, settings, count_tested(settings, self._portraits, self._styles))
        return None if guess is None else _Rate(guess.seconds, 0.0, guess.bytes)

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
        if stage.name == "evaluate":
            return count_tested(settings, self._portraits, self._styles)
        if stage.name.startswith(BASELINE):
            return KINDS * settings.baselines.portraits
        near = step.near
        upstream = [need.stage for need in stage.needs if need.stage != "prompts"]
        if not upstream or (near is not None and stage.name == "distill"):
            return near.samples if near is not None else 0
        # The last of its needs says most. Without a past of its own, rejections are not foreseen.
        by_editor = stage.name == "edit" and settings.edit.source == "editor"
        given = self._expected_inputs(step, upstream[-1]) * (settings.edit.prompts_per_portrait if by_editor else 1)
        tried = near.samples + near.rejected if near is not None else 0
        return round(given * near.samples / tried) if near is not None and tried else given

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
            self._rates[stage.name] = self._measure(stage)
        return self._rates[stage.name]

    def _measure(self, stage: Stage) -> _Rate | None:
        """Rate of the records that are the most like the partitions that wait."""
        past = self._past(stage)
        if not past:
            return None
        each = [(made, made.entry.samples + made.entry.rejected if stage.split_by else 1) for made in past]
        rates = [made.entry.seconds * made.work / count for made, count in each if count]
        seconds = median(rates) if rates else 0.0
        # The first partition of a worker has its start in it, which no setting makes longer.
        first = [made.entry.seconds - seconds * count / made.work for made, count in each
                 if made.work and made.entry.seconds * made.work > FIRST * seconds * count]  # fmt: skip
        size = sum(made.entry.bytes * made.bytes for made in past) / max(1, sum(count for _, count in each))
        return _Rate(seconds, median(first) if first else 0.0, size, any(not made.same for made in past))

    def _past(self, stage: Stage) -> list["_Made"]:
        """The newest records on this kind of device: those of the same work, else of the same kind, else all."""
        found = sorted(self._entries.get(stage.name, []), key=lambda entry: entry.created, reverse=True)[:RECENT]
        made = [each for entry in found[:LOOKED_INTO] if (each := self._compare(stage, entry)) is not None]
        alike = [each for each in made if each.alike]
        return [each for each in alike if each.same] or alike or made

    def _compare(self, stage: Stage, entry: Entry) -> "_Made | None":
        """Compare the work of a record with that of the present settings; None where it cannot be read."""
        work, settings = work_of(stage.name), self.plan.settings
        step = self.plan.steps.get(entry.partition) or self.plan.by_stage[stage.name][0]
        try:
            then, now = self.plan.made_from(entry), self.plan.now(step)
            area = (settings.align.size / self._side(then)) ** 2
            before = max(1, entry.samples)
            samples = before if stage.split_by else max(1, self.expected(step, stage))
            ratio = work.ratio(now["settings"], then["settings"], (samples, before), area)
            unchanged = work.ratio(now["settings"], then["settings"], (before, before), area) == 1.0
            size = work.bytes_ratio(now["settings"], then["settings"], settings.world, area)
        except (OSError, ValueError, KeyError, TypeError, UserError):
            return None  # only an estimate: a record deleted meanwhile, or of an older version, is skipped
        alike = work.same_kind(now["settings"], then["settings"]) and now.get("weights") == then.get("weights")
        return _Made(entry, ratio, size, alike, alike and unchanged and size == 1.0)

    def _side(self, then: Mapping[str, Any]) -> int:
        """Side of the portraits that a record was made of, px: its own setting, or that of its input."""
        if "size" in then["settings"]:
            return int(then["settings"]["size"])
        for key, digest in then.get("inputs", {}).items():
            if key.startswith("align/"):
                known = self.plan.catalog.entries.get(key, {}).values()
                entry = next((entry for entry in known if entry.digest == digest), None)
                if entry is not None:
                    return int(self.plan.made_from(entry)["settings"]["size"])
        return self.plan.settings.align.size  # not known: taken as the present one

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
        wanted = settings.train + settings.test
        if past:
            return round(fmean(past) * wanted * len(steps))
        return len(steps) * (TOKENS_PER_REQUEST + wanted * TOKENS_PER_PROMPT)

    def _used(self, entry: Entry) -> float:
        """Return the tokens that a prompt of a style took; 0 without a language model."""
        try:
            text = (self.plan.catalog.folder(entry) / "llm.json").read_text(encoding="utf-8")
            tokens = sum(int(each["tokens_in"]) + int(each["tokens_out"]) for each in json.loads(text))
        except (OSError, ValueError, KeyError, TypeError):
            return 0  # only an estimate
        return tokens / max(1, entry.samples)
