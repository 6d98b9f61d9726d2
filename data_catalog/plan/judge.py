"""The verdict on one partition: cached, to be made and why, or perhaps to be made.

    verdict = judge(now, past)    # reads records and file names as far as it needs them, changes nothing

A partition is cached where a whole record carries the fingerprint of what would make it now. While an upstream digest
is not known, a record that agrees in all the rest may still turn out to match: `maybe`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from data_catalog.plan.reasons import Reason, differences, same_but_inputs
from data_catalog.plan.stage_code import StageCode
from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.fingerprint import canonical_json, digest_json
from data_catalog.store.store import RECORD

State = Literal["cached", "run", "maybe", "done", "failed", "blocked"]
FAULTS_SHOWN = 3  # of one partition's files


@dataclass(frozen=True, slots=True)
class Verdict:
    """State of a partition, and the reasons for it.

    `entry` is what is made, when `cached` or `done`. For a `run`, it is the record under the same fingerprint
    that is not good enough, if any. `near` is the record that the reasons compare with: the one that matches or
    may match (then it `fits`), else the newest. `done`, `failed` and `blocked` (an input failed) come while running.
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
    """Records of one partition. `forced`: none of them will do. `keep`: those of other code will."""

    key: str
    stage: str
    catalog: Catalog
    code: StageCode
    forced: bool
    keep: bool


def judge(now: Inputs, past: Past) -> Verdict:
    """Return the verdict on a partition from what would make it now and what made it before."""
    if now.unknown:
        return _judge_early(now, past)
    fingerprint = digest_json(now.document())
    entry = past.catalog.find(past.key, fingerprint)
    if entry is not None:
        faults, note = _faults(past, entry)
        return Verdict("run" if faults else "cached", faults, fingerprint, entry, entry, True, note)
    history = past.catalog.history(past.key)
    if not history:
        return Verdict("run", (Reason("new"),), fingerprint)
    return Verdict("run", _changes(past, history[0], now.recorded({})), fingerprint, near=history[0])


def made_from(catalog: Catalog, entry: Entry) -> dict[str, Any]:
    """Return the fingerprint inputs of a record, without the rest of it: a plan may ask for thousands."""
    text = (catalog.folder(entry) / RECORD).read_bytes()
    inputs: dict[str, Any] = json.loads(text)["fingerprint_inputs"]
    return inputs


def _judge_early(now: Inputs, past: Past) -> Verdict:
    """Judge with upstream digests unknown: `maybe`, if they could turn out so that a record matches."""
    history = past.catalog.history(past.key)
    if not history:
        return Verdict("run", (Reason("new"),))
    named = now.with_unknown()
    for entry in history:
        if same_but_inputs(made_from(past.catalog, entry), named, now.known):
            faults, note = _faults(past, entry)
            reasons = faults or _upstream(now.unknown, "runs", "run")
            return Verdict("run" if faults else "maybe", reasons, near=entry, fits=True, note=note)

    # Compare with the newest record as if the upstream partitions that it knows came out as they were.
    newest = history[0]
    then = made_from(past.catalog, newest).get("inputs", {})
    as_before, added = [key for key in now.unknown if key in then], [key for key in now.unknown if key not in then]
    still = now.recorded({key: then[key] for key in as_before})
    changes = _changes(past, newest, still, expected=bool(added))
    reasons = (*changes, *_upstream(added, "is new", "are new"), *_upstream(as_before, "runs", "run"))
    return Verdict("run", reasons, near=newest)


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
