"""A style that is dropped in while a language model writes the prompts: who is asked, and what runs."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_catalog.store.execute import execute
from data_catalog.store.stage import Partition
from tasks.stages import STAGES
from tests.worlds.declared import Workshop, work_in_words
from tests.worlds.fake_llm import GOOD, KEY, FakeServer, says

JOINED = {"dataset/all", "distill/all", "evaluate/all"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    server = FakeServer([says(*GOOD)])
    yield server
    server.stop()


def build(shop: Workshop) -> list[str]:
    """Build like `shop.build`, with real requests for the prompts."""
    plan, ran = shop.plan(), []
    for stage in STAGES:
        for job in plan.resolve(stage.name):
            told = job if stage.name == "prompts" else dataclasses.replace(job, run=work_in_words)
            plan.finish(execute(told, shop.root))
            ran.append(job.key)
    plan.save()
    return ran


def test_dropping_one_style_file_asks_for_and_runs_only_that_style(tmp_path: Path, server: FakeServer) -> None:
    shop = Workshop(tmp_path)
    given = server.settings()
    shop.overrides = [
        f"{section}.{name}={getattr(getattr(given, section), name)}"
        for section, name in (("prompts", "backend"), ("prompts", "base_url"), ("prompts", "model"))
    ]
    build(shop)
    asked = len(server.requests)
    assert asked == 2
    shop.add_style("neon")
    ran = build(shop)
    assert {Partition.parse(key).style for key in ran if key not in JOINED} == {"neon"}
    assert set(ran) >= {"prompts/neon", "edit/neon/0000", "edit/neon/0001", "teach/neon/0001", *JOINED}
    (request,) = server.requests[asked:]
    assert "neon" in request["messages"][-1]["content"]
    assert build(shop) == []
    assert len(server.requests) == asked + 1
