"""Reasons for a partition to run: the differences between its record's inputs and the present ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

UNKNOWN = "(not known yet)"  # a digest of what is not made


class Reason(NamedTuple):
    """Difference in words; `then` and `now` are the values as text, None where there was none."""

    what: str
    then: str | None = None
    now: str | None = None

    def __str__(self) -> str:
        if self.then is None and self.now is None:
            return self.what
        return f"{self.what}: {_or_none(self.then)} -> {_or_none(self.now)}"


# How each part of `fingerprint_inputs` is named, in the order of telling.
_NAMES = {"settings": "setting", "sources": "file", "inputs": "upstream", "weights": "weights"}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Reason]:
    """All differences between two `fingerprint_inputs`."""
    return [reason for reason, differs in compare(then, now) if differs]


def compare(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[Reason, bool]]:
    """Every fingerprint input, then and now, and whether it differs."""
    versions = [None if inputs.get("version") is None else str(inputs["version"]) for inputs in (then, now)]
    yield Reason("stage version", *versions), versions[0] != versions[1]
    for section, word in _NAMES.items():
        old, new = dict(_flat(then.get(section, {}))), dict(_flat(now.get(section, {})))
        for name in sorted(old.keys() | new.keys()):
            short = section != "settings"
            values = [_text(side[name], short) if name in side else None for side in (old, new)]
            yield Reason(f"{word} {name}", *values), (name in old) != (name in new) or old.get(name) != new.get(name)


def changed_definitions(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of functions, classes and module bodies that differ."""
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def same_but_inputs(then: Mapping[str, Any], now: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    """Whether a record may still match when its unknown upstream digests turn out as they were.

    `now["inputs"]` names all inputs, `known` holds the digests of those that are made already.
    """
    own_is_same = all(then.get(section) == now[section] for section in now if section != "inputs")
    old = then.get("inputs", {})
    return own_is_same and old.keys() == now["inputs"].keys() and all(old[name] == known[name] for name in known)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings by dotted name."""
    if isinstance(value, Mapping):
        for name, child in value.items():
            yield from _flat(child, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, value


def _text(value: Any, short: bool) -> str:
    if value is None:
        return UNKNOWN if short else "null"
    return str(value)[:12] if short else (value if isinstance(value, str) else repr(value))


def _or_none(text: str | None) -> str:
    return "(none)" if text is None else text
