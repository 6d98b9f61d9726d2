"""Names of flow runs: a user's own is kept, a random one gives way to what the run does."""

import re
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from prefect.utilities.names import generate_slug

from flows.track.flow_run_names import MOST_CHARS, is_random, name_products, name_run

OF_THE_FORM = ("omicron532-arae", "beta6-organia-fringe", "nu4-lithlad")


@flow(name="paint", flow_run_name=name_run, validate_parameters=True)
def paint(
    profile: str = "demo",
    overrides: list[str] | None = None,
    style: str | None = None,
    dataset: str | None = None,
    seeds: int = 3,
) -> dict[str, str]:
    name_products({"dataset": "00bef3b1" * 8, "student": "5af3" * 16})
    return {}


def run_name(own: str | None = None, **given: Any) -> str:
    """Run the flow, as Prefect's runner runs one that was asked for by this name; returns the name at the end."""
    with get_client(sync_client=True) as client:
        asked = client.create_flow_run(paint, parameters=given, name=own)
        run_flow(paint, flow_run=asked, parameters=given)
        return client.read_flow_run(asked.id).name


def test_names_that_prefect_draws_are_known() -> None:
    assert all(is_random(generate_slug(2)) for _ in range(500))
    assert all(is_random(name) for name in OF_THE_FORM)


@pytest.mark.parametrize("name", ["nightly", "nightly-build", "zombie2-test", "beta-test", "demo steps=30", "a-b-c"])
def test_a_users_names_are_known(name: str) -> None:
    assert not is_random(name)


def test_a_users_own_name_is_kept(prefect_api: None) -> None:
    assert run_name("nightly-build") == "nightly-build"


def test_a_name_says_profile_parameters_products_and_settings_and_no_two_are_equal(prefect_api: None) -> None:
    names = [
        run_name(),
        run_name(overrides=["edit.steps=30"]),
        run_name(OF_THE_FORM[0], style="zombie", dataset="00bef3b1" * 8),
    ]
    begun = r"\d\d \w+ \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"demo, dataset 00bef3b1, student 5af35af3, {begun}", names[0])
    assert re.fullmatch(rf"demo, dataset 00bef3b1, student 5af35af3, edit\.steps=30, {begun}", names[1])
    assert re.fullmatch(rf"demo style=zombie dataset=00bef3b1, student 5af35af3, {begun}", names[2])


def test_a_long_name_counts_the_settings_that_it_leaves_out(prefect_api: None) -> None:
    name = run_name(overrides=[f"edit.steps={number}" for number in range(1000, 1020)])
    told = re.findall(r"edit\.steps=\d+", name)
    assert 0 < len(told) < 20
    assert f" +{20 - len(told)}, " in name
    assert len(name) <= MOST_CHARS + len(" +19")
