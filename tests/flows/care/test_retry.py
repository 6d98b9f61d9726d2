"""Partitions that `stillroom retry` makes beside the failed ones."""

from pathlib import Path
from typing import Any

import pytest

from flows.care.retry import outdated_by, retry
from flows.run.history import RunNote, note_run
from tests.worlds.declared import Workshop


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Two styles are selected, and nothing is taught: that is for the next build."""
    shop = Workshop(tmp_path)
    shop.overrides = ["select.min_identity=0.5"]
    shop.build(until="select")

    def plan_with(overrides: list[str], root: Path) -> Any:
        shop.overrides = overrides
        return shop.plan()

    monkeypatch.setattr("flows.care.retry.load_settings", lambda profile, overrides: overrides)
    monkeypatch.setattr("flows.care.retry.open_plan", plan_with)
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    return shop


def test_retry_makes_what_its_overrides_outdate_and_nothing_else(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, blocked = {"select/zombie": "too few"}, ["dataset/all", "teach/zombie/0000"]
    given = ["select.min_identity=0.5"]
    note = RunNote("build-dataset", "demo", "failed", 1.0, overrides=given, failed=failed, blocked=blocked)
    note_run(shop.root, note)
    asked: list[Any] = []

    def run_here(flow: str, profile: str, overrides: list[str], **parameters: Any) -> dict[str, Any]:
        asked.append((overrides, parameters["only"]))
        return {}

    monkeypatch.setattr("flows.care.retry.run_here", run_here)
    retry("demo", [])
    assert asked == [(given, ["dataset/all", "select/zombie", "teach/zombie/0000"])]
    retry("demo", ["select.on_low_yield=leave_out"])
    overrides, only = asked[1]
    assert overrides == [*given, "select.on_low_yield=leave_out"]
    # The gate of the sound style is a setting of its own: it is judged again, or the failed one would wait for it.
    assert only == ["dataset/all", "select/red-hair", "select/zombie", "teach/zombie/0000"]


def test_a_larger_source_is_made_too(shop: Workshop) -> None:
    note = RunNote("build-dataset", "demo", "failed", 1.0, overrides=shop.overrides)
    added = outdated_by(["portraits.count=6"], note)
    assert {"portraits/0002", "edit/zombie/0002", "select/zombie"} <= added
    assert "edit/zombie/0001" not in added
