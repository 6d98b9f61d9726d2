"""References between records: the closure of the kept ones over their inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from data_catalog.store.catalog import Catalog, Entry
from data_catalog.store.store import RECORD

Place = tuple[str, str]  # partition key, fingerprint


class References:
    """Entries by partition (the newest first), and the set of those that are kept."""

    def __init__(self, catalog: Catalog, history: Mapping[str, list[Entry]]) -> None:
        self.history = history
        self.entries = [entry for entries in history.values() for entry in entries]
        self.catalog = catalog
        self._kept: dict[Place, Entry] = {}
        self._waiting: list[Entry] = []  # kept entries whose inputs are still to be followed
        self._parts: list[tuple[str, str]] = []  # inputs that are part of a partition: (name, digest)

    def is_kept(self, entry: Entry) -> bool:
        return (entry.partition, entry.fingerprint) in self._kept

    def keep(self, entries: Iterable[Entry]) -> None:
        """Keep these entries and, after `close`, everything that they were made from."""
        for entry in entries:
            if not self.is_kept(entry):
                self._kept[(entry.partition, entry.fingerprint)] = entry
                self._waiting.append(entry)

    def keep_named(self, digests: Mapping[str, str]) -> None:
        """Keep partitions by key and digest: where several records have the bytes, one that is kept, or the newest."""
        for key, digest in digests.items():
            same = [entry for entry in self.history.get(key, []) if entry.digest == digest]
            if same and not any(self.is_kept(entry) for entry in same):
                self.keep(same[:1])

    def close(self) -> None:
        """Follow the inputs of kept entries to the first stage."""
        while self._waiting or self._parts:
            while self._waiting:
                for name, digest in self.inputs(self._waiting.pop()).items():
                    if "#" in name:
                        self._parts.append((name, digest))
                    else:
                        self.keep_named({name: digest})
            # Parts last: the partition that holds one is usually kept by then for another reason.
            while self._parts:
                self._keep_part(*self._parts.pop())

    def keep_dependants(self, stages: set[str]) -> None:
        """Keep records of these stages that were made from a kept record of them, and theirs in turn."""
        candidates = [entry for entry in self.entries if entry.stage in stages and not self.is_kept(entry)]
        while found := [entry for entry in candidates if not self.is_kept(entry) and self._depends(entry, stages)]:
            self.keep(found)
            self.close()

    def inputs(self, entry: Entry) -> dict[str, str]:
        """Return upstream digests by name, from the entry's record."""
        text = (self.catalog.folder(entry) / RECORD).read_bytes()  # not validated: there may be many
        inputs: dict[str, str] = json.loads(text)["fingerprint_inputs"].get("inputs", {})
        return inputs

    def _keep_part(self, name: str, digest: str) -> None:
        key, _, place = name.partition("#")
        holding = [entry for entry in self.history.get(key, []) if entry.part(place) == digest]
        if holding and not any(self.is_kept(entry) for entry in holding):
            self.keep(holding[:1])

    def _depends(self, entry: Entry, stages: set[str]) -> bool:
        for name, digest in self.inputs(entry).items():
            if name.partition("/")[0] in stages:
                upstream = self.history.get(name, [])
                if any(self.is_kept(other) and other.digest == digest for other in upstream):
                    return True
        return False
