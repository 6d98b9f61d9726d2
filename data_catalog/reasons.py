"""Why a partition runs: the differences between what a record was made from and what would make it now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Reason(NamedTuple):
    """One difference. `what` is in words, `then` and `now` are values as text; None where there was none."""

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
    found = []
    if then.get("version") != now.get("version"):
        found.append(Reason("stage version", str(then.get("version")), str(now.get("version"))))
    for section, word in _NAMES.items():
        old, new = dict(_flat(then.get(section, {}))), dict(_flat(now.get(section, {})))
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                short = section != "settings"
                found.append(Reason(f"{word} {name}", _text(old.get(name), short), _text(new.get(name), short)))
    return found


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


def _text(value: Any, short: bool) -> str | None:
    if value is None:
        return None
    return str(value)[:12] if short else (value if isinstance(value, str) else repr(value))


def _or_none(text: str | None) -> str:
    return "(none)" if text is None else text
