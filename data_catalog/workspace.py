"""Workspace of a command or a flow: its settings, and the store that it works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from data_catalog.config.places import data_root
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.store.store import Store

if TYPE_CHECKING:
    from data_catalog.store.catalog import Catalog


@dataclass(frozen=True)
class Workspace:
    """Settings, data root, store and catalog. Opened once, by the command line or a flow, and handed on.

    `overrides` are those among the settings, as on the command line.
    """

    settings: Settings
    root: Path  # the data root
    overrides: tuple[str, ...] = ()

    @classmethod
    def open(cls, profile: str = "demo", overrides: Sequence[str] | None = None) -> Self:
        """Read the profile and find the data root. Raises UserError for a mistake in either; touches no file there."""
        chosen = tuple(overrides or ())
        return cls(load_settings(profile, chosen), data_root(), chosen)

    def with_overrides(self, *more: str) -> Self:
        """Return this workspace with further overrides, which count before its own."""
        return self._changed(*self.overrides, *more)

    def with_defaults(self, *defaults: str) -> Self:
        """Return this workspace with values for what its own overrides leave open."""
        return self._changed(*defaults, *self.overrides)

    def _changed(self, *overrides: str) -> Self:
        return replace(self, settings=load_settings(self.profile, overrides), overrides=overrides)

    @property
    def profile(self) -> str:
        return self.settings.profile

    @cached_property
    def store(self) -> Store:
        return Store(self.root)

    @cached_property
    def catalog(self) -> Catalog:
        from data_catalog.store.catalog import Catalog  # `stillroom --help` needs no pyarrow

        return Catalog(self.store)
