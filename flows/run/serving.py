"""Serving of deployments: the checkout that serves a Prefect server's deployments is registered, refused or taken over.

A deployment carries the path of the checkout that registered it last, and a run changes into that folder: code is
never copied. One checkout and data root serve a server at a time. Their name is stored in a Prefect variable and
renewed while they run. The functions need the server's address in this process's environment before Prefect is
imported.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from flows.run import active
from flows.run.deployments import read_deployments, tell_left_out
from flows.run.processes import end_process, find_service, is_alive
from flows.track.addresses import shown

log = logging.getLogger(__name__)

VARIABLE = "stillroom_serving"  # Prefect variable that names the serving checkout
BEAT_SECONDS = 10.0  # seconds between two renewals
SILENT_SECONDS = 45.0  # seconds without a renewal from another machine after which it counts as gone
LOST_BEATS = 6  # failed renewals in a row after which the server counts as gone
NOT_TAKEN = "prefect.yaml is not taken, and the deployments stay as they were"
WORKING = ("RUNNING", "PENDING", "CANCELLING")  # states of a flow run that a process should be executing


@dataclass(frozen=True)
class Serving:
    """Process that serves the deployments: its checkout, data root, machine and number.

    `server` is the Prefect home of our own server; it differs in a copy of the server's database.
    """

    checkout: str
    data_root: str
    server: str | None
    host: str
    pid: int
    started: float  # of the process, in Unix seconds
    seen: float = field(default_factory=time.time)  # the last renewal, in Unix seconds

    @classmethod
    def here(cls, root: Path) -> "Serving":
        """Describe this process."""
        process, host = psutil.Process(), socket.gethostname()
        return cls(str(PROJECT), str(root.resolve()), own_server(root), host, process.pid, process.create_time())

    def alive(self) -> bool:
        if self.host == socket.gethostname():
            return is_alive(self.pid, self.started)
        return time.time() - self.seen < SILENT_SECONDS

    def is_of(self, root: Path) -> bool:
        """Whether it serves this checkout on this data root."""
        return (self.checkout, self.data_root) == (str(PROJECT), str(root.resolve()))

    def same_process(self, other: "Serving | None") -> bool:
        return other is not None and (self.host, self.pid, self.started) == (other.host, other.pid, other.started)


def own_server(root: Path) -> str | None:
    """Return the Prefect home of this process's server, if it is the one of this data root."""
    home = root.resolve() / "prefect"
    service = find_service(home, "server")
    return str(home) if service is not None and service.url == os.environ.get("PREFECT_API_URL") else None


def find_serving(root: Path) -> Serving | None:
    """Read which checkout serves the server's deployments; None if no process does."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        variable = client.read_variable_by_name(VARIABLE)
    try:
        found = Serving(**variable.value) if variable is not None else None  # type: ignore[arg-type]
    except TypeError:  # written by another version
        return None
    if found is None or not found.alive():
        return None
    copied = found.server is not None and found.server != (own_server(root) or found.server)
    return None if copied else found


def check_served_here(root: Path, api_url: str, take_over: bool = False) -> bool:
    """Say whether this checkout serves the deployments; False if nothing does.

    Raises UserError where another checkout, or this one on another data root, serves them. With `take_over` that one
    is ended instead, unless a run is in work there.
    """
    serving = find_serving(root)
    if serving is None or serving.is_of(root):
        return serving is not None
    if not take_over:
        other_root = serving.checkout == str(PROJECT)
        raise UserError(
            f"another {'data root' if other_root else 'checkout'} serves the deployments of this Prefect server",
            serving=f"{serving.checkout}, data root {serving.data_root}, process {serving.pid} on {serving.host}",
            here=f"{PROJECT}, data root {root.resolve()}",
            prefect=shown(api_url),
            hint="make down there; or take them over: make up TAKE_OVER=1, stillroom run --take-over",
        )
    if busy := _runs_in_work():
        hint = "wait for them, or cancel them on Prefect's pages, then take over"
        raise UserError(f"runs are in work for {serving.checkout}", runs=", ".join(busy), hint=hint)
    log.info("taking the deployments over from %s", serving.checkout)
    if serving.host == socket.gethostname():
        end_process(serving.pid)
    else:
        _write(Serving.here(root))  # its next renewal sees that, and it ends
        time.sleep(2 * BEAT_SECONDS)
        _remove()
    return False


def _runs_in_work() -> list[str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    chosen = FlowRunFilter.model_validate({"state": {"type": {"any_": WORKING}}})
    with get_client(sync_client=True) as client:
        return [run.name for run in client.read_flow_runs(flow_run_filter=chosen) if run.deployment_id]


def _write(serving: Serving) -> None:
    from prefect.variables import Variable

    Variable.set(VARIABLE, asdict(serving), overwrite=True)


def _remove() -> None:
    from prefect.variables import Variable

    Variable.unset(VARIABLE)


async def serve(root: Path, ready: Path) -> None:
    """Register the deployments of prefect.yaml and execute their runs, until ended or taken over.

    Writes `ready` once the deployments are registered, with lines for the user; and again whenever it is removed.
    """
    from prefect.runner import Runner

    here = Serving.here(root)
    await asyncio.to_thread(_write, here)
    runner = Runner(name="stillroom", pause_on_shutdown=False)
    ids, line = await register_all(runner)
    await crash_left_runs(root, ids)
    ready.write_text(line, encoding="utf-8")
    tasks = [asyncio.create_task(_renew(here, root, runner)), asyncio.create_task(_register_anew(runner, ready))]
    try:
        await runner.start()
    finally:
        for task in tasks:
            task.cancel()
        ready.unlink(missing_ok=True)
        with suppress(Exception):  # the server may be gone already
            if here.same_process(await asyncio.to_thread(find_serving, root)):
                await asyncio.to_thread(_remove)


async def _register_anew(runner: Any, ready: Path) -> None:
    """Register the deployments again, and write `ready` again, whenever it was removed: `make up` does that."""
    while True:
        await asyncio.sleep(1)
        if ready.exists():
            continue
        try:
            _, line = await register_all(runner)
        except Exception as error:  # those of before go on
            line = f"{NOT_TAKEN}: {error}"
        ready.write_text(line, encoding="utf-8")


async def register_all(runner: Any) -> tuple[list[Any], str]:
    """Register what prefect.yaml says, and remove what it no longer says. Returns the ids, and lines for the user."""
    deployed, ids, earlier, kept, pools = await read_deployments(), [], set(), [], set()
    for each in deployed:
        deployment_id, before = await register(runner, each.given)
        ids.append(deployment_id)
        if before is not None:
            earlier |= {before.path} - {None, str(PROJECT)}
            pools |= {before.work_pool_name} - {None}
            kept += [each.label] if before.schedules and "schedules" not in each.given else []
    places, gone = ", ".join(sorted(map(str, earlier))), await remove_others(ids)
    lines = [
        f"deployments registered for {PROJECT}, no longer for {places}" * bool(places),
        f"taken from the work pool {', '.join(sorted(pools))}: prefect deploy puts them back" * bool(pools),
        f"no longer in prefect.yaml, and removed: {', '.join(gone)}" * bool(gone),
        f"keeping schedules made on Prefect's pages: {', '.join(kept)}    (schedules: [] removes them)" * bool(kept),
        tell_left_out(deployed),
    ]
    return ids, "\n".join(filter(None, lines))


async def register(runner: Any, given: dict[str, Any]) -> tuple[Any, Any]:
    """Register one deployment for this checkout. Returns its id, and the deployment of before."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate
    from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
    from prefect.exceptions import ObjectNotFound

    # Its entrypoint is below the working directory, which is the checkout.
    deployment = RunnerDeployment.from_entrypoint(**given)
    async with get_client() as client:
        try:
            before = await client.read_deployment_by_name(deployment.full_name)
        except ObjectNotFound:
            before = None
        if before is not None and "schedules" in given:
            # Registering again neither removes a schedule that has a slug, nor heeds an empty list.
            slugs = {each.slug for each in given["schedules"]} - {None}
            for schedule in before.schedules:
                if schedule.slug not in slugs:
                    await client.delete_deployment_schedule(before.id, schedule.id)
        try:
            deployment_id = await runner.aadd_deployment(deployment)
        except DeploymentApplyError as error:
            raise UserError(f"prefect.yaml, {deployment.full_name}: Prefect refuses it", says=str(error)) from error
        # Registering again does not renew the path, and a deployment without pull steps copies that whole folder
        # into the working directory before each run. A pool would be given the same runs.
        update = DeploymentUpdate(path=str(PROJECT), pull_steps=[_enter(str(PROJECT))], work_pool_name=None)
        await client.update_deployment(deployment_id, update)
    return deployment_id, before


def _enter(folder: str) -> dict[str, Any]:
    """Return the step that begins a run of ours. No other tool registers a deployment with this one and no pool."""
    return {"prefect.deployments.steps.set_working_directory": {"directory": folder}}


async def remove_others(ids: Sequence[Any]) -> list[str]:
    """Remove deployments that this checkout registered and that are not among these. Returns their names.

    Their runs stay on the pages. A schedule without a process would add a late run each time.
    """
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        flows = {flow.id: flow.name for flow in await client.read_flows()}
        ours = [each for each in await client.read_deployments() if each.pull_steps == [_enter(str(PROJECT))]]
        gone = [each for each in ours if each.id not in ids and each.work_pool_name is None]
        for each in gone:
            await client.delete_deployment(each.id)
    return sorted(f"{flows.get(each.flow_id)}/{each.name}" for each in gone)


async def crash_left_runs(root: Path, deployment_ids: Sequence[Any]) -> None:
    """End flow runs of these deployments that no process executes: this process is the only one that serves them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    alive = {run.flow_run_id for run in active.running(root)}
    wanted = {"deployment_id": {"any_": deployment_ids}, "state": {"type": {"any_": WORKING}}}
    chosen = FlowRunFilter.model_validate(wanted)
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=chosen):
            if str(run.id) not in alive and not _is_at_work(run.infrastructure_pid):
                message = "its process is gone; finished partitions are kept"
                await client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _is_at_work(infrastructure_pid: str | None) -> bool:
    """Whether Prefect's `host:pid` names a process of this machine that lives."""
    _, _, number = (infrastructure_pid or "").rpartition(":")
    return number.isdigit() and psutil.pid_exists(int(number)) and int(number) != os.getpid()


async def _renew(here: Serving, root: Path, runner: Any) -> None:
    """Renew the variable; stop serving once it names another process, or the server is gone."""
    lost = 0
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        try:
            serving = await asyncio.to_thread(find_serving, root)
            if serving is not None and not here.same_process(serving):
                log.warning("%s serves the deployments now; this process ends", serving.checkout)
                break
            await asyncio.to_thread(_write, Serving(**{**asdict(here), "seen": time.time()}))
            lost = 0
        except Exception as error:  # whatever the client raises where no server answers
            lost += 1
            log.debug("the Prefect server did not answer: %s", error)
            if lost == LOST_BEATS:
                log.warning("the Prefect server is gone; this process ends")
                break
    await runner.astop()
