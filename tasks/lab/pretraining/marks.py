"""Marks of an exam: numbers with an interval over people, and the bar for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

DRAWS = 1000
LEVEL = (0.025, 0.975)

Statistic = Callable[[np.ndarray], float]  # indices of people, drawn with replacement, to a number


@dataclass(frozen=True)
class Mark:
    """Mark. value is None where it is undefined, such as an error outside an edit that changes everything."""

    measure: str
    title: str
    value: float | None
    low: float | None  # of the 95 % interval over people
    high: float | None
    people: int
    bar: float | None = None
    higher: bool = True  # is better
    subject: str = ""  # the look that it is about
    group: str = ""  # what the prompts were like

    @property
    def key(self) -> str:
        """Return the name for MLflow."""
        return ".".join(part for part in (self.measure, self.group.replace(" ", "_"), self.subject) if part)

    @property
    def reached(self) -> bool | None:
        """None without a bar, or without a number."""
        if self.bar is None or self.value is None:
            return None
        return self.value >= self.bar if self.higher else self.value <= self.bar

    def describe(self) -> dict[str, Any]:
        return asdict(self) | {"reached": self.reached}


@dataclass(frozen=True)
class Sheet:
    """Pictures for the report: rows of named columns in one picture (H, W, 3) uint8."""

    title: str
    columns: list[str]
    picture: np.ndarray


@dataclass(frozen=True)
class Examined:
    """Results of one network's exam."""

    marks: list[Mark]
    sheets: list[Sheet] = field(default_factory=list)


def grade(measure: str, title: str, people: int, statistic: Statistic, draws: int = DRAWS, **further: Any) -> Mark:
    """The statistic of all people, and its 95 % interval over people drawn again.

    People are drawn, not their pictures: those of one person are not independent. further: the other fields of a mark.
    """
    value = statistic(np.arange(people))
    if not np.isfinite(value):
        return Mark(measure, title, None, None, None, people, **further)
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.integers(people, size=people)) for _ in range(draws)]
    low, high = np.nanquantile(drawn, LEVEL)
    return Mark(measure, title, float(value), float(low), float(high), people, **further)


def mean_of(values: np.ndarray) -> Statistic:
    """Mean over people and all further axes.  values: (N, ...)."""
    return lambda people: float(values[people].mean())


def median_of(values: np.ndarray) -> Statistic:
    """Median over people and all further axes.  values: (N, ...)."""
    return lambda people: float(np.median(values[people]))


def share_of(part: np.ndarray, whole: np.ndarray) -> Statistic:
    """Sum of `part` over that of `whole`, both (N,); nan where the whole is 0."""

    def share(people: np.ndarray) -> float:
        total = whole[people].sum()
        return float(part[people].sum() / total) if total > 0 else float("nan")

    return share
