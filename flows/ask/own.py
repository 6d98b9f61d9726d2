"""Records in the newest dataset of a profile's own settings, and those of its students. Imports no engine."""

from __future__ import annotations

from pathlib import Path

from data_catalog.plan.judge import made_from
from data_catalog.products.keys import DATASET
from data_catalog.products.students import recorded_digest
from data_catalog.store.catalog import Catalog, Entry


class OwnRecords:
    """Tells whether a record belongs to the dataset that `datasets/latest` names. The plan prefers those."""

    def __init__(self, root: Path, profile: str) -> None:
        self.latest, self.profile = root / "datasets" / "latest", profile
        self._digests: dict[str, str] | None = None

    def __call__(self, catalog: Catalog, entry: Entry) -> bool:
        """Whether the record is in that dataset, or made from it."""
        if self._digests is None:
            self._digests = self._read(catalog)
        if not self._digests or entry.partition in self._digests:
            return self._digests.get(entry.partition) == entry.digest
        made_of: dict[str, str] = made_from(catalog, entry).get("inputs", {})
        return made_of.get(DATASET) == self._digests[DATASET]

    def _read(self, catalog: Catalog) -> dict[str, str]:
        """Digests of the dataset and of its partitions; empty where the profile's own settings made none."""
        try:
            latest = self.latest.read_text(encoding="utf-8").strip()
        except OSError:
            return {}
        for entry in catalog.history(DATASET):
            record = catalog.read(entry)
            made = record.fingerprint_inputs
            if recorded_digest(record) == latest and made.get("settings", {}).get("profile") == self.profile:
                return {**made["inputs"], DATASET: entry.digest}
        return {}
