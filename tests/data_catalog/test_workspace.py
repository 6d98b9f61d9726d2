"""A workspace is what the profile, the overrides and the environment say when it is opened."""

from pathlib import Path

import pytest

from data_catalog.config.errors import UserError
from data_catalog.workspace import Workspace


def test_a_workspace_holds_the_settings_and_the_store_of_the_data_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    workspace = Workspace.open("demo", ["edit.steps=3"])
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "other"))
    assert (workspace.profile, workspace.settings.edit.steps) == ("demo", 3)
    assert workspace.store.root == workspace.catalog.store.root == workspace.root == tmp_path / "data"
    assert workspace.catalog is workspace.catalog
    assert not workspace.root.exists()


def test_further_overrides_leave_the_data_root_and_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path))
    workspace = Workspace.open("demo", ["edit.steps=3", "edit.seed=7"])
    monkeypatch.delenv("STILLROOM_DATA")
    changed = workspace.with_overrides("edit.steps=4")
    assert (changed.settings.edit.steps, changed.settings.edit.seed, changed.root) == (4, 7, tmp_path)
    assert changed.overrides == ("edit.steps=3", "edit.seed=7", "edit.steps=4")
    assert workspace.settings.edit.steps == 3
    filled = workspace.with_defaults("edit.steps=5", "edit.prompts_per_portrait=2")
    assert (filled.settings.edit.steps, filled.settings.edit.prompts_per_portrait) == (3, 2)


def test_a_mistake_is_said_when_it_is_opened() -> None:
    with pytest.raises(UserError, match="unknown key 'stesp'"):
        Workspace.open("demo", ["edit.stesp=3"])
