"""Partitions that `stillroom retry` makes beside the failed ones."""

from pathlib import Path
from typing import Any

import pytest

from flows.care.retry import find_partitions
from flows.run.history import RunNote
from tests.worlds.declared import Workshop

FAILED = {"select/zombie", "teach/zombie/0000", "dataset/all"}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """Everything is selected; to `again`, the zombies' selection failed."""
    shop = Workshop(tmp_path)
    shop.build(until="select")

    def plan_with(overrides: list[str], root: Path) -> Any:
        shop.overrides = overrides
        return shop.plan()

    monkeypatch.setattr("flows.care.retry.load_settings", lambda profile, overrides: overrides)
    monkeypatch.setattr("flows.care.retry.open_plan", plan_with)
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    return shop


def again(overrides: list[str]) -> set[str]:
    blocked = sorted(FAILED - {"select/zombie"})
    note = RunNote("build-dataset", "demo", "failed", 1.0, failed={"select/zombie": "too few"}, blocked=blocked)
    return find_partitions(note, overrides)


def test_retry_makes_what_its_overrides_outdate(shop: Workshop) -> None:
    # `on_low_yield` is a setting of each selection: the sound style is judged again, or the dataset would wait for it.
    assert again(["select.on_low_yield=leave_out"]) == {*FAILED, "select/red-hair"}
    more = again(["portraits.count=6"])
    assert {"portraits/0002", "edit/zombie/0002", "select/red-hair"} <= more
    assert "edit/zombie/0001" not in more


def test_retry_makes_what_the_failed_need_and_nothing_that_is_outdated_elsewhere(shop: Workshop) -> None:
    for style in ("zombie", "red-hair"):
        (shop.styles / f"{style}.txt").write_text(f"Make it another {style}\n")
    chain = {"prompts/zombie", *(f"{stage}/zombie/000{block}" for stage in ("edit", "score") for block in range(2))}
    assert again([]) == {*FAILED, *chain}
