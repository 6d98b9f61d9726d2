"""The verdict on one partition: cached, to be made and why, or perhaps to be made.

    verdict = judge(now, past)    # reads records and file names as far as it needs them, changes nothing

A partition is cached where a whole record carries the fingerprint of what would make it now. While an upstream digest
is not known, a record that agrees in all the rest may still turn out to match: `maybe`.

The reasons compare with the nearest record: the one with the fewest different inputs. Among equals, that is the one in
the newest dataset of the profile's own settings, else the newest: so an experiment with `--set` is no reason later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_catalog.plan.reasons import Reason, differences, same_but_inputs
from data_catalog.plan.stage_code import StageCode
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.fingerprint import canonical_json, digest_json
from data_catalog.store.store import RECORD

State = Literal["cached", "run", "maybe", "done", "failed", "blocked"]
FAULTS_SHOWN = 3  # of one partition's files
FAILED = "failed: "  # begins the reason of a partition whose last attempt failed


@dataclass(frozen=True, slots=True)
class Verdict:
    """State of a partition, and the reasons for it.

    `entry` is what is made, when `cached` or `done`. For a `run`, it is the record under the same fingerprint
    that is not good enough, if any. `near` is the record that the reasons compare with: the one that matches or
    may match (then it `fits`), else the nearest. `done`, `failed` and `blocked` (an input failed) come while running.
    """

    state: State = "maybe"
    reasons: tuple[Reason, ...] = ()
    fingerprint: str | None = None
    entry: Entry | None = None
    near: Entry | None = None
    fits: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Fingerprint inputs of a partition as they are now: its own, digests of what is upstream, names without one."""

    own: dict[str, Any]
    known: dict[str, str]
    unknown: list[str]

    def document(self) -> dict[str, Any]:
        """Return what is known of them, in the form of a record."""
        return {**self.own, "inputs": self.known}

    def recorded(self, others: Mapping[str, str | None]) -> dict[str, Any]:
        """Return them as a record stores them: tuples are lists. `others` are digests in place of unknown ones."""
        document = {**self.own, "inputs": {**self.known, **others}}
        stored: dict[str, Any] = json.loads(canonical_json(document))
        return stored

    def with_unknown(self) -> dict[str, Any]:
        """Return them all as a record stores them; a digest that is not known yet is None."""
        return self.recorded(dict.fromkeys(self.unknown))


@dataclass(frozen=True, slots=True)
class Past:
    """Records of one partition. `forced`: none of them will do. `keep`: those of other code will.

    own: whether a record is in the newest dataset of the profile's own settings.  failure: fingerprint and message of
    the last attempt, where it failed.
    """

    key: str
    stage: str
    catalog: Catalog
    code: StageCode
    forced: bool
    keep: bool
    own: Callable[[Entry], bool]
    failure: tuple[str, str] | None

    def history(self) -> list[Entry]:
        """List the records, the profile's own first, then the newest."""
        return sorted(self.catalog.history(self.key), key=lambda entry: not self.own(entry))

    def failed(self, fingerprint: str) -> tuple[Reason, ...]:
        """Say that the last attempt at the same failed."""
        same = self.failure is not None and self.failure[0] == fingerprint
        return (Reason(f"{FAILED}{self.failure[1]}"),) if self.failure is not None and same else ()


def judge(now: Inputs, past: Past) -> Verdict:
    """Return the verdict on a partition from what would make it now and what made it before."""
    if now.unknown:
        return _judge_early(now, past)
    fingerprint = digest_json(now.document())
    entry = past.catalog.find(past.key, fingerprint)
    if entry is not None:
        faults, note = _faults(past, entry)
        return Verdict("run" if faults else "cached", faults, fingerprint, entry, entry, True, note)
    failed, near = past.failed(fingerprint), _nearest(past.history(), past.catalog, now)
    changes = _changes(past, near, now.recorded({})) if near is not None else () if failed else (Reason("new"),)
    return Verdict("run", (*failed, *changes), fingerprint, near=near)


def made_from(catalog: Catalog, entry: Entry) -> dict[str, Any]:
    """Return the fingerprint inputs of a record, without the rest of it: a plan may ask for thousands."""
    text = (catalog.folder(entry) / RECORD).read_bytes()
    inputs: dict[str, Any] = json.loads(text)["fingerprint_inputs"]
    return inputs


def _judge_early(now: Inputs, past: Past) -> Verdict:
    """Judge with upstream digests unknown: `maybe`, if they could turn out so that a record matches."""
    history, named = past.history(), now.with_unknown()
    for entry in history:
        if same_but_inputs(made_from(past.catalog, entry), named, now.known):
            faults, note = _faults(past, entry)
            reasons = faults or _upstream(now.unknown, "runs", "run")
            return Verdict("run" if faults else "maybe", reasons, near=entry, fits=True, note=note)

    near = _nearest(history, past.catalog, now)
    if near is None:
        return Verdict("run", (Reason("new"),))
    then = made_from(past.catalog, near).get("inputs", {})
    as_before, added = [key for key in now.unknown if key in then], [key for key in now.unknown if key not in then]
    changes = _changes(past, near, _as_before(then, now), expected=bool(added))
    reasons = (*changes, *_upstream(added, "is new", "are new"), *_upstream(as_before, "runs", "run"))
    return Verdict("run", reasons, near=near)


def _nearest(history: Sequence[Entry], catalog: Catalog, now: Inputs) -> Entry | None:
    """Return the record with the fewest inputs that differ, the first among equals; None without a record."""

    def distance(entry: Entry) -> int:
        then = made_from(catalog, entry)
        return len(differences(then, _as_before(then.get("inputs", {}), now)))

    return min(history, key=distance, default=None) if len(history) != 1 else history[0]


def _as_before(then: Mapping[str, str], now: Inputs) -> dict[str, Any]:
    """Return the inputs as if the upstream partitions that a record knows came out as they were."""
    return now.recorded({key: then[key] for key in now.unknown if key in then})


def _faults(past: Past, entry: Entry) -> tuple[tuple[Reason, ...], str]:
    """Say why a matching record is not good enough, or in a note what it is kept in spite of."""
    if past.forced:
        return (Reason("forced"),), ""
    problems = past.catalog.problems(entry)
    if problems:
        return tuple(Reason(f"damaged: {problem}") for problem in problems[:FAULTS_SHOWN]), ""
    changed = past.code.change(past.stage, entry)
    if changed is None:
        return (), ""
    return ((), f"kept: {changed}") if past.keep else ((changed,), "")


def _changes(past: Past, entry: Entry, now: dict[str, Any], expected: bool = False) -> tuple[Reason, ...]:
    """Say what differs from a record that does not match; nothing may, where new inputs are `expected`."""
    found = differences(made_from(past.catalog, entry), now)
    if not found and not expected:
        found = [Reason("its record does not match")]
    changed = past.code.change(past.stage, entry)
    forced = [Reason("forced")] if past.forced else []
    return (*forced, *found, *([changed] if changed else []))


def _upstream(names: Sequence[str], one: str, several: str) -> tuple[Reason, ...]:
    """Return one reason for all of these upstream partitions."""
    more = one if len(names) == 1 else f"and {len(names) - 1} more {several}"
    return (Reason(f"upstream {names[0]} {more}"),) if names else ()
