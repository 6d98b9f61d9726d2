"""The code behind each stage: its digest now, and which function differs from the code that made a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from data_catalog.config.settings import Settings
from data_catalog.plan.reasons import Reason, changed_definitions
from data_catalog.plan.source import SourceDigest, SourceReader
from data_catalog.store.catalog import Entry
from data_catalog.store.fingerprint import write_atomically
from data_catalog.store.stage import Stage

NAMES_SHOWN = 3  # of functions that changed


class StageCode:
    """Source digests by stage. What earlier plans knew of the code lies in `folder`."""

    def __init__(
        self,
        stages: Sequence[Stage],
        settings: Settings,
        model_modules: Callable[[str], Iterable[str]] | None,
        source: SourceReader | None,
        folder: Path,
    ) -> None:
        self.folder = folder
        self._stages = {stage.name: stage for stage in stages}
        self._settings = settings
        self._model_modules = model_modules
        self._reader = source or SourceReader(memory=folder / "analyses.json")
        self._digests: dict[str, SourceDigest] = {}
        self._changes: dict[tuple[str, str], Reason] = {}  # by stage and earlier digest: a stage's records share one

    def digest(self, stage_name: str) -> SourceDigest:
        """Digest of the code behind a stage: of its module, and of the modules of its models."""
        if stage_name not in self._digests:
            stage = self._stages[stage_name]
            roots, without = [stage.run.__module__], []
            if self._model_modules is not None:
                # The zoo imports every network; a stage depends on the code of those alone that it names.
                without = ["models.zoo.zoo"]
                roots += [module for name in stage.models(self._settings) for module in self._model_modules(name)]
            self._digests[stage_name] = self._reader.digest(roots, without)
        return self._digests[stage_name]

    def change(self, stage_name: str, entry: Entry) -> Reason | None:
        """Return the difference to the code that made a record or was last accepted for it; None if there is none."""
        source = self.digest(stage_name)
        if entry.made_by(source.digest):
            return None
        valid_for = entry.accepted.split()[-1] if entry.accepted else entry.source_digest
        if (stage_name, valid_for) not in self._changes:
            self._changes[(stage_name, valid_for)] = self._compare(source, valid_for)
        return self._changes[(stage_name, valid_for)]

    def _compare(self, source: SourceDigest, valid_for: str) -> Reason:
        """Name what differs from earlier code, as far as it is remembered."""
        try:
            then = json.loads(self._file(valid_for).read_text(encoding="utf-8"))
            names = changed_definitions(then, source.definitions)
        except (OSError, ValueError):
            names = []  # only a memory: the plan then says that the code changed, not where
        shown = ", ".join(names[:NAMES_SHOWN]) or "(earlier code is not known)"
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return Reason(f"code {shown}{more}", valid_for[:12], source.digest[:12])

    def remember(self, stage_name: str) -> None:
        """Keep the definitions of the code as it is now, so that a later plan can name those that changed."""
        source = self.digest(stage_name)
        if not self._file(source.digest).exists():
            write_atomically(self._file(source.digest), json.dumps(source.definitions, sort_keys=True).encode())

    def _file(self, digest: str) -> Path:
        return self.folder / f"{digest[:16]}.json"

    def save(self) -> None:
        """Keep what was learned about files of code."""
        self._reader.save()
