"""`status` shows what each check left of a style's pseudo-labels."""

import io
import re
from typing import Any

import pytest

from data_catalog.samples.encoding import encode_json
from data_catalog.workspace import Workspace
from flows.ask.funnels import flat_funnels, funnel_metrics, kept_line, read_funnels
from flows.ask.plan import describe_plan
from flows.care.status import describe_status
from flows.cli.care import funnel_table, status_table
from flows.cli.plan import plan_table
from flows.cli.screen import plain_console
from tasks.gating.gates import Candidate
from tasks.select import count_funnel
from tasks.tables.scores import MEASURES
from tests.worlds.declared import Workshop


def judged(step: str, reason: str, split: str = "train") -> Candidate:
    scores: dict[str, Any] = dict.fromkeys(MEASURES, 0.5)
    place: dict[str, Any] = {"portrait_id": "p", "block": 0, "attempt": 0, "place": "0000"}
    return Candidate(key="k", split=split, step=step, reason=reason, **place, **scores)


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
    document = describe_status(Workspace.open())
    assert {row["style"] for row in document["funnels"]} == {"red-hair", "zombie"}
    screen = io.StringIO()
    status_table(document, plain_console(file=screen, width=80))
    text = screen.getvalue()
    assert re.search(r"style +made +decodes +identity +kept +yield\n", text)
    assert re.search(r"zombie \*\s+10\s+9\s+6\s+6\s+60 %", text)
    assert "no sample was lost by: not constant, " in text
    assert "zombie lost: min_identity 3, truncated 1" in text
    assert "* of an earlier selection" in text  # another profile's settings


def test_the_plan_says_how_many_are_kept(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    document = describe_plan("demo", [f"prompts.styles_dir={shop.styles}"])
    screen = io.StringIO()
    plan_table(document, plain_console(file=screen, width=120))
    assert "kept of made: red-hair* 6 of 7, zombie* 6 of 10" in screen.getvalue()


def test_further_attempts_are_told(shop: Workshop) -> None:
    (funnel,) = [{**each, "attempts": [10, 3]} for each in read_funnels(shop.plan())[1:]]
    screen = io.StringIO()
    funnel_table([funnel], plain_console(file=screen, width=120))
    assert "zombie made in 2 attempts: 10 + 3" in screen.getvalue()
    assert kept_line([funnel, {**funnel, "style": "clown"}]) == (
        "kept of made: 6 of 10 in 2 attempts in each of 2 styles"
    )
    assert kept_line([funnel]) == "kept of made: zombie 6 of 10 in 2 attempts"


def test_a_plan_says_that_it_cannot_know_all_attempts_yet(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(shop.root))
    known = describe_plan("demo", [f"prompts.styles_dir={shop.styles}"])["notes"]
    assert not [note for note in known if "select.keep" in note]
    asked = describe_plan("demo", [f"prompts.styles_dir={shop.styles}", "select.keep=50"])["notes"]
    assert "select: what 2 styles may need beyond this for select.keep=50 is known once they are judged" in asked


def test_pages_get_one_row_and_plain_metrics_a_style(shop: Workshop) -> None:
    funnels = read_funnels(shop.plan())
    row = flat_funnels(funnels)[1]
    assert (row["style"], row["made"], row["identity"], row["kept"]) == ("zombie", 10, 6, 6)
    assert row["lost"] == "min_identity 3, truncated 1"
    metrics = funnel_metrics(funnels)
    assert (metrics["count/funnel.zombie.kept"], metrics["count/funnel.red-hair.not_constant"]) == (6.0, 6.0)
    assert metrics["funnel.zombie.yield"] == 0.6
