"""Deployments served by `make up` are what prefect.yaml says; keys that cannot hold are named."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.runner import Runner

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from flows.run import deployments, serving
from flows.run.deployments import read_deployments, tell_left_out
from tests.worlds.checkouts import MARK

ENTRY = {"name": "demo", "entrypoint": "flows/mark.py:mark"}
FULL: dict[str, Any] = {
    **ENTRY,
    "version": "7",
    "tags": ["nightly", "small"],
    "description": "Write it down",
    "parameters": {"into": "/dev/null"},
    "enforce_parameter_schema": False,
    "paused": True,
    "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
    "schedules": [
        {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "slug": "nightly", "parameters": {"into": "/tmp/nightly"}},
        {"interval": 3600, "slug": "hourly", "active": False},
    ],
    "triggers": [
        {
            "enabled": False,
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "expect": ["prefect.flow-run.Completed"],
            "parameters": {"into": "{{ event.resource.id }}"},
        }
    ],
}

Say = Callable[..., list[deployments.Deployed]]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_api: None) -> Say:
    """Write the file, and read it."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "mark.py").write_text(MARK)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "prefect.yaml"
    monkeypatch.setattr(deployments.read_deployments, "__defaults__", (path,))

    def write(*entries: dict[str, Any], **top: Any) -> list[deployments.Deployed]:
        path.write_text(yaml.safe_dump({**top, "deployments": list(entries)}))
        return asyncio.run(read_deployments())

    return write


def register() -> tuple[list[Any], str]:
    return asyncio.run(serving.register_all(Runner(name="test")))


def read(name: str = "mark/demo") -> Any:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name)


def automations_of(deployment: Any) -> list[Any]:
    async def read_all() -> list[Any]:
        async with get_client() as client:
            return await client.read_resource_related_automations(f"prefect.deployment.{deployment.id}")

    return asyncio.run(read_all())


def test_everything_that_the_file_says_holds(say: Say) -> None:
    say(FULL)
    assert register()[1] == ""
    found = read()
    assert (found.version, found.tags, found.description) == ("7", ["nightly", "small"], "Write it down")
    assert (found.parameters, found.enforce_parameter_schema, found.paused) == ({"into": "/dev/null"}, False, True)
    assert found.global_concurrency_limit.limit == 1
    assert found.concurrency_options.collision_strategy.value == "CANCEL_NEW"
    schedules = {each.slug: each for each in found.schedules}
    assert (schedules["nightly"].schedule.cron, schedules["nightly"].schedule.timezone) == (
        "0 3 * * *",
        "Europe/Berlin",
    )
    assert schedules["nightly"].parameters == {"into": "/tmp/nightly"}
    assert (schedules["hourly"].schedule.interval.total_seconds(), schedules["hourly"].active) == (3600, False)
    (automation,) = automations_of(found)
    assert not automation.enabled
    assert automation.actions[0].parameters == {"into": "{{ event.resource.id }}"}


def test_what_the_file_no_longer_says_no_longer_holds(say: Say) -> None:
    say(FULL, {**ENTRY, "name": "other"})
    register()
    say({**ENTRY, "schedules": FULL["schedules"][:1]})
    assert register()[1] == "no longer in prefect.yaml, and removed: mark/other"
    found = read()
    assert (found.tags, found.paused, found.global_concurrency_limit) == ([], False, None)
    assert [each.slug for each in found.schedules] == ["nightly"]
    assert automations_of(found) == []
    say(ENTRY)  # the key is gone: a schedule may be one of Prefect's pages
    assert register()[1] == "keeping schedules made on Prefect's pages: mark/demo    (schedules: [] removes them)"
    assert len(read().schedules) == 1
    say({**ENTRY, "schedules": []})
    assert register()[1] == ""
    assert read().schedules == []


def test_a_deployment_on_a_work_pool_is_taken_from_it_and_it_is_said(say: Say) -> None:
    from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate

    say(ENTRY)
    register()
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="theirs", type="process"), overwrite=True)
        client.update_deployment(read().id, DeploymentUpdate(work_pool_name="theirs"))
    assert read().work_pool_name == "theirs"
    assert register()[1] == "taken from the work pool theirs: prefect deploy puts them back"
    assert read().work_pool_name is None


def test_a_deployment_of_another_tool_stays(say: Say) -> None:
    from prefect import flow

    @flow(name="mark")
    def stand_in(into: str) -> None: ...

    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(stand_in), name="theirs", path=str(PROJECT))
    say(ENTRY)
    assert register()[1] == ""
    assert read("mark/theirs").name == "theirs"


def test_keys_that_only_a_worker_heeds_are_named(say: Say) -> None:
    pool = {"name": "stillroom", "job_variables": {"env": {"A": "b"}}, "work_queue_name": "fast"}
    said = tell_left_out(say({**ENTRY, "work_pool": pool, "shedules": [{"cron": "* * * * *"}]}, pull=[{"step": {}}]))
    assert said == (
        "prefect.yaml: only `prefect deploy` and a worker heed pull, shedules, work_pool.job_variables, "
        "work_pool.work_queue_name (mark/demo)"
    )
    assert tell_left_out(say({**ENTRY, "work_pool": {"name": "stillroom"}}, name="stillroom")) == ""


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"schedules": [{"cron": "nonsense"}]}, "schedules: cron: "),
        ({"schedules": [{"kron": "* * * * *"}]}, "schedules: one of cron, interval, rrule was expected"),
        ({"schedules": [{"cron": "* * * * *", "slag": "x"}]}, "schedules: slag: "),
        ({"concurrency_limit": {"limit": 1, "collision": "CANCEL_NEW"}}, "concurrency_limit: unknown collision"),
        ({"triggers": [{"expects": ["x"]}]}, "triggers: unknown expects"),
        ({"tags": 7}, "'int' object is not iterable"),
        ({"parameters": 7}, "parameters: "),
        ({"work_pool": 7}, "'int' object is not iterable"),
    ],
)
def test_a_mistake_in_the_file_is_said_with_deployment_and_key(say: Say, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match="mark/demo: Prefect does not take it") as caught:
        say({**ENTRY, **entry})
    assert said in caught.value.fields["says"]


def test_placeholders_are_filled_in(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.variables import Variable

    monkeypatch.setenv("MARK_TAG", "from-the-shell")
    Variable.set("mark_cron", "5 4 * * *", overwrite=True)
    schedules = [{"cron": "{{ prefect.variables.mark_cron }}"}]
    (given,) = say({**ENTRY, "tags": ["{{ $MARK_TAG }}"], "schedules": schedules})
    assert given.given["tags"] == ["from-the-shell"]
    assert given.given["schedules"][0].schedule.cron == "5 4 * * *"


def test_the_projects_own_file_holds_and_each_deployment_is_tagged() -> None:
    found = asyncio.run(read_deployments())
    assert tell_left_out(found) == ""
    assert all(each.given["name"] in each.given["tags"] for each in found)
    assert "pretrain-embedded/paper" not in [each.label for each in found]
