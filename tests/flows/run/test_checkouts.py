"""Copied, moved and neighbouring checkouts: a run executes the code of the checkout that it was asked of, alone."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runner import Runner

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from flows.run import active, serving
from flows.run.processes import Service, find_service, start_service, stop_service, wait_until
from flows.run.server import QUIET, find_here, healthy
from flows.run.serving import Serving
from tasks.processes import free_port
from tests.worlds import web
from tests.worlds.checkouts import MARK, Checkout, copy_checkout, end_family, make_checkout

# A service outlives the object that started it, by intention.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]

# ---- the heart of it, in this process ----


@pytest.fixture
def ended() -> Iterator[ExitStack]:
    """Ends what a test starts."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def sleeper(ended: ExitStack) -> Callable[[Path], Service]:
    """Start a service that does nothing, noted in a folder."""

    def start(folder: Path) -> Service:
        service = start_service(folder, "server", SLEEP, {})
        ended.callback(end_family, service.pid)
        return service

    return start


def test_a_copied_note_neither_finds_nor_ends_the_service_of_the_original(
    tmp_path: Path, sleeper: Callable[[Path], Service]
) -> None:
    home, copy = tmp_path / "A" / "prefect", tmp_path / "B" / "prefect"
    service = sleeper(home)
    shutil.copytree(home, copy)
    assert not stop_service(copy, "server")
    assert find_here(copy, "server") is None
    assert find_service(home, "server") == service
    assert service.alive()


def test_a_service_that_ran_while_its_root_was_moved_is_found_and_ended_before_a_new_one(
    tmp_path: Path, sleeper: Callable[[Path], Service]
) -> None:
    service = sleeper(tmp_path / "A" / "prefect")
    (tmp_path / "A").rename(tmp_path / "B")
    (tmp_path / "A" / "prefect" / "storage").mkdir(parents=True)  # by the service, which knows of no other place
    home = tmp_path / "B" / "prefect"
    assert find_service(home, "server") == service  # `down` ends it
    assert find_here(home, "server") is None  # `up` starts another
    assert not service.alive()


def test_a_note_of_another_process_with_the_same_number_is_not_ours(
    tmp_path: Path, sleeper: Callable[[Path], Service]
) -> None:
    service = sleeper(tmp_path / "prefect")
    note = tmp_path / "prefect" / "server.service.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "started": service.started - 60}))
    assert not stop_service(tmp_path / "prefect", "server")
    assert service.alive()


@flow(name="mark")
def _stand_in(into: str) -> None:
    """A flow of the name that the scratch checkouts' flow has."""


def test_registering_gives_a_known_deployment_this_checkouts_path_and_copies_nothing(
    prefect_api: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "mark.py").write_text(MARK)
    monkeypatch.chdir(tmp_path)

    async def registered_twice() -> list[tuple[Any, Any]]:
        async with get_client() as client:
            flow_id = await client.create_flow(_stand_in)
            await client.create_deployment(flow_id, name="demo", path="/another/checkout", entrypoint="flows/old.py:f")
        entry = {"name": "demo", "entrypoint": "flows/mark.py:mark"}
        return [await serving.register(Runner(name="test"), entry) for _ in range(2)]

    (first, before), (second, between) = asyncio.run(registered_twice())
    assert (before.path, between.path) == ("/another/checkout", str(PROJECT))
    assert first == second
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("mark/demo")
    assert (found.path, found.entrypoint) == (str(PROJECT), "flows/mark.py:mark")
    assert found.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": str(PROJECT)}}]


@pytest.fixture
def other(prefect_api: None, tmp_path: Path, ended: ExitStack) -> Iterator[Serving]:
    """A second checkout whose process serves the deployments of the tests' Prefect server."""
    process = subprocess.Popen(SLEEP, start_new_session=True)
    ended.callback(process.wait)
    ended.callback(end_family, process.pid)
    started = psutil.Process(process.pid).create_time()
    named = Serving("/other/checkout", "/other/data", None, socket.gethostname(), process.pid, started)
    serving._write(named)
    yield named
    serving._remove()


def test_another_checkout_that_serves_is_refused_with_both_paths_named(other: Serving, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        serving.check_served_here(tmp_path, "http://127.0.0.1:1/api")
    said = str(caught.value)
    assert "another checkout serves the deployments" in said
    assert {"/other/checkout", "/other/data", str(PROJECT), str(tmp_path)} <= set(said.replace(",", " ").split())
    serving._write(replace(other, checkout=str(PROJECT)))
    with pytest.raises(UserError, match="another data root serves the deployments"):
        serving.check_served_here(tmp_path, "http://127.0.0.1:1/api")
    serving._write(replace(other, checkout=str(PROJECT), data_root=str(tmp_path)))
    assert serving.check_served_here(tmp_path, "http://127.0.0.1:1/api")


def test_taking_over_ends_the_other_process_but_not_while_a_run_is_in_work(other: Serving, tmp_path: Path) -> None:
    from prefect.states import Completed, Running

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(_stand_in), name="busy")
        run = client.create_flow_run_from_deployment(deployment, parameters={"into": ""}, state=Running())
        with pytest.raises(UserError, match="runs are in work for /other/checkout") as caught:
            serving.check_served_here(tmp_path, "http://127.0.0.1:1/api", take_over=True)
        assert run.name in str(caught.value)
        assert other.alive()
        client.set_flow_run_state(run.id, Completed(), force=True)
    assert not serving.check_served_here(tmp_path, "http://127.0.0.1:1/api", take_over=True)
    assert not other.alive()


def test_a_dead_process_serves_nothing_and_so_does_the_original_of_a_copied_server(
    other: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: Callable[[Path], Service]
) -> None:
    serving._write(replace(other, started=other.started - 60))
    assert serving.find_serving(tmp_path) is None
    # On another machine: by its renewals.
    serving._write(replace(other, host="elsewhere", seen=time.time()))
    assert serving.find_serving(tmp_path) is not None
    serving._write(replace(other, host="elsewhere", seen=time.time() - 60))
    assert serving.find_serving(tmp_path) is None
    # This root's server has the database of another one, which has its own process.
    serving._write(replace(other, server="/other/data/prefect"))
    assert serving.find_serving(tmp_path) is not None
    service = sleeper(tmp_path / "prefect")
    note = tmp_path / "prefect" / "server.service.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "url": "http://127.0.0.1:1/api"}))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert serving.find_serving(tmp_path) is None
    assert service.alive()


def test_flow_runs_that_no_process_is_at_are_ended_and_those_in_work_are_not(prefect_api: None, tmp_path: Path) -> None:
    from prefect.states import Pending, Running

    async def states() -> dict[str, str]:
        async with get_client() as client:
            deployment = await client.create_deployment(await client.create_flow(_stand_in), name="left")
            runs = {}
            for name, state in {
                "dead": Running(),
                "noted": Running(),
                "by-number": Pending(),
                "pending": Pending(),
            }.items():
                run = await client.create_flow_run_from_deployment(deployment, parameters={"into": ""}, name=name)
                await client.set_flow_run_state(run.id, state, force=True)
                runs[name] = run.id
            await client.update_flow_run(runs["by-number"], infrastructure_pid=f"{socket.gethostname()}:{os.getppid()}")
            await client.update_flow_run(runs["dead"], infrastructure_pid=f"{socket.gethostname()}:{2**22 + 1}")
            note = active.ActiveRun("mark", "demo", str(tmp_path), None, "", str(runs["noted"]))
            with active.noted(tmp_path, note):
                await serving.crash_left_runs(tmp_path, [deployment])
            found = [await client.read_flow_run(run_id) for run_id in runs.values()]
            for run_id in runs.values():
                await client.delete_flow_run(run_id)
        return {run.name: run.state.type.value if run.state else "" for run in found}

    expected = {"dead": "CRASHED", "noted": "RUNNING", "by-number": "PENDING", "pending": "CRASHED"}
    assert asyncio.run(states()) == expected


# ---- the same from outside: real checkouts, servers and runs ----


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout whose services are up, all from nothing."""
    checkout = make_checkout(tmp_path_factory.mktemp("original") / "A")
    try:
        checkout.up()
        yield checkout
    finally:
        checkout.end()


@pytest.fixture
def copied(original: Checkout, tmp_path: Path) -> Iterator[Callable[..., Checkout]]:
    """Copy the original under another name; what is started in a copy is ended with the test."""
    made = []

    def copy(name: str, **given: str) -> Checkout:
        checkout = copy_checkout(original, tmp_path / name)
        checkout.given |= given
        made.append(checkout)
        return checkout

    yield copy
    for checkout in made:
        checkout.end()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_copied_project_starts_its_own_services_and_runs_its_own_code(
    original: Checkout, copied: Callable[..., Checkout]
) -> None:
    services = {name: original.service(name) for name in ("ui", "deployments", "server")}
    assert all(services.values())
    copy = copied("B")
    before = original.state(), copy.state()
    assert before[1]["status"] == " M flows/mark.py\n"

    assert "nothing of ours was running" in copy.down()
    assert f"deployments registered for {copy.path}, no longer for {original.path}" in copy.up()
    for name, service in services.items():
        own = copy.service(name)
        assert service is not None
        assert own is not None
        assert service.alive()
        assert (own.pid != service.pid, own.url != service.url or name == "deployments") == (True, True)
    assert (copy.service("server") or services["server"]).url in (copy.path / "prefect.toml").read_text()  # type: ignore[union-attr]

    assert copy.mark() == copy.own_mark("edited in B")
    assert original.mark() == original.own_mark()
    assert copy.mark() == copy.own_mark("edited in B")
    assert (original.state(), copy.state()) == before

    assert copy.down() == "ended: ui, deployments, server\n"
    assert all(service is not None and service.alive() for service in services.values())
    assert original.mark() == original.own_mark()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_moved_project_runs_from_its_new_place_whether_its_services_ran_or_not(
    copied: Callable[..., Checkout],
) -> None:
    first = copied("first")
    first.up()
    running = [first.service(name) for name in ("ui", "deployments", "server")]
    second = Checkout(first.path.rename(first.path.with_name("second")))
    third = Checkout(second.path.with_name("third"))
    try:
        assert f"deployments registered for {second.path}, no longer for {first.path}" in second.up()
        assert [service for service in running if service and service.alive()] == []
        assert second.mark() == second.own_mark("edited in first")
        second.down()
        second.path.rename(third.path)
        assert f"deployments registered for {third.path}, no longer for {second.path}" in third.up()
        assert third.mark() == third.own_mark("edited in first")
        assert third.git("status", "--porcelain") == " M flows/mark.py\n"
        # The services that ran during the move may have made files of their own there.
        assert not (first.path / "flows").exists()
        assert not second.path.exists()
        assert third.down() == "ended: ui, deployments, server\n"
    finally:
        second.end()
        third.end()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_checkouts_on_one_data_root_serve_it_in_turn(
    original: Checkout, copied: Callable[..., Checkout], tmp_path: Path
) -> None:
    data = tmp_path / "shared"
    shutil.copytree(original.root, data)
    one, two = copied("one", STILLROOM_DATA=str(data)), copied("two", STILLROOM_DATA=str(data))
    one.up()
    server, deployments = one.service("server"), one.service("deployments")
    assert server is not None
    assert deployments is not None
    refused = two.refused_up()
    assert str(one.path) in refused
    assert str(two.path) in refused
    assert one.mark() == one.own_mark("edited in one")
    assert f"registered for {two.path}, no longer for {one.path}" in two.up("--take-over")
    assert not deployments.alive()
    assert two.service("server") == server
    assert two.mark() == two.own_mark("edited in two")
    ended = one.run("flows.run", "down")
    assert (ended.returncode, f"serving   {two.path}\n" in ended.stderr) == (1, True), ended.stderr
    assert two.mark() == two.own_mark("edited in two")
    two.down()
    assert f"registered for {one.path}, no longer for {two.path}" in one.up()
    assert one.mark() == one.own_mark("edited in one")
    one.down()


@pytest.fixture
def users_server(original: Checkout, tmp_path: Path) -> Iterator[str]:
    """A Prefect server that is not of any checkout. Its database was that of one, which saves its migrations."""
    home, port = tmp_path / "users", free_port()
    home.mkdir()
    shutil.copy(original.root / "prefect" / "prefect.db", home)
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    service = start_service(home, "server", command, {**QUIET, "PREFECT_HOME": str(home)}, url, cwd=tmp_path)
    try:
        wait_until(lambda: healthy(url), service, seconds=240)
        variable = f"{url}/variables/name/{serving.VARIABLE}"  # may not be in the copy; a busy server answers 503
        wait_until(lambda: web.delete(variable).status_code in (204, 404), service, seconds=60)
        yield url
    finally:
        end_family(service.pid)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_checkouts_on_one_server_serve_it_in_turn(copied: Callable[..., Checkout], users_server: str) -> None:
    one, two = copied("one", PREFECT_API_URL=users_server), copied("two", PREFECT_API_URL=users_server)
    one.up()
    first = one.service("deployments")
    assert first is not None
    assert one.service("server") is None
    assert one.mark() == one.own_mark("edited in one")

    refused = [two.refused_up()]
    asked = two.run("flows.cli", "run", "build-dataset")
    assert asked.returncode == 1
    for said in (*refused, asked.stderr):
        assert "another checkout serves the deployments of this Prefect server" in said
        assert str(one.path) in said
        assert str(two.path) in said
    assert first.alive()

    assert f"registered for {two.path}, no longer for {one.path}" in two.up("--take-over")
    assert not first.alive()
    second = two.service("deployments")
    assert two.mark() == two.own_mark("edited in two")
    assert one.down() == "ended: ui\n"
    assert second is not None
    assert second.alive()
    assert two.mark() == two.own_mark("edited in two")
    assert two.down() == "ended: ui, deployments\n"
    assert healthy(users_server)
