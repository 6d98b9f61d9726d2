"""`status` shows what each check left of a style's pseudo-labels."""

import io
import re

import pytest
from rich.console import Console

from data_catalog.encoding import encode_json
from flows.funnels import read_funnels
from flows.planning import describe_status
from flows.screen import status_table
from tasks.select import count_funnel
from tests.declared import Workshop


def judged(step: str, reason: str, split: str = "train") -> dict[str, object]:
    scores = dict.fromkeys(("score_clip_text", "score_clip_direction", "score_clip_image", "score_identity"), 0.5)
    others = dict.fromkeys(("score_ssim", "score_lpips", "score_camera_drift_deg"), 0.5)
    return {"split": split, "step": step, "reason": reason, "kept": not reason, "attempt": 0, **scores, **others}


def funnel_of(lost: int) -> dict[str, object]:
    rows = [judged("kept", "")] * 6 + [judged("identity", "min_identity")] * lost
    return count_funnel([*rows, judged("decodes", "truncated"), judged("kept", "", "test")])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Ten zombies were made, one was truncated and three were nobody any more; the red hair kept six of seven."""
    shop = Workshop(tmp_path_factory.mktemp("shop"))
    shop.build(until="select")
    plan = shop.plan()
    for step, lost in zip(plan.by_stage["select"], (0, 3), strict=True):
        assert step.entry is not None
        (plan.catalog.folder(step.entry) / "funnel.json").write_bytes(encode_json({"funnel": funnel_of(lost)}))
    return shop


def test_each_style_has_the_funnel_of_its_selection(shop: Workshop) -> None:
    red, zombie = read_funnels(shop.plan())
    assert (red["style"], zombie["style"], zombie["yield"]) == ("red-hair", "zombie", 0.6)
    assert red["current"]
    assert zombie["current"]


def test_an_earlier_selection_is_shown_as_such(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shop, "overrides", ["select.min_identity=0.9"])
    assert [row["current"] for row in read_funnels(shop.plan())] == [False, False]


def test_status_shows_the_funnels(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    document = describe_status("demo", [])
    assert {row["style"] for row in document["funnels"]} == {"red-hair", "zombie"}
    screen = io.StringIO()
    status_table(document, Console(file=screen, width=80))
    text = screen.getvalue()
    assert re.search(r"zombie \*\s+10\s+9(\s+9)+(\s+6)+\s+60 %", text)
    assert "zombie lost: min_identity 3, truncated 1" in text
    assert "* of an earlier selection" in text  # another profile's settings
