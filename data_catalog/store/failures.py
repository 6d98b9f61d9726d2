"""Last failure of each partition, so that a plan tells it until the partition is made.

A note only: a lost or damaged file loses the messages.
"""

from __future__ import annotations

import json
from pathlib import Path

from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.store import writing

FILE = "catalog/failed.json"  # below the data root

Failure = tuple[str, str]  # fingerprint, and the first line of the message


class Failures:
    """Failures by partition key. `save` is the only call that writes."""

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / FILE
        self._known = self._read()
        self._changes: dict[str, Failure | None] = {}

    def find(self, key: str) -> Failure | None:
        """Return the last failure of a partition, if it was not made since."""
        return self._known.get(key)

    def note(self, key: str, fingerprint: str, message: str) -> None:
        """Note a failure; it replaces the partition's last one."""
        self._known[key] = self._changes[key] = (fingerprint, message.strip().partition("\n")[0])

    def forget(self, key: str, fingerprint: str) -> None:
        """Forget the failure of what is made now."""
        known = self._known.get(key)
        if known is not None and known[0] == fingerprint:
            del self._known[key]
            self._changes[key] = None

    def save(self) -> None:
        """Write the changes into the file, beside those of other processes."""
        if not self._changes:
            return
        found = {**self._read(), **self._changes}
        told = {key: failure for key, failure in sorted(found.items()) if failure is not None}
        with writing(self.root):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(told, indent=1).encode())
        self._changes = {}

    def _read(self) -> dict[str, Failure]:
        try:
            return {key: (str(failed), str(said)) for key, (failed, said) in json.loads(self.path.read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
