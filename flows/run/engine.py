"""Start of a flow: in this process, or as a Prefect deployment."""

import importlib
import inspect
import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from data_catalog.config.errors import UserError
from data_catalog.config.places import data_root
from data_catalog.config.profiles import load_settings
from flows.mistakes import MISTAKES
from flows.run import first_look
from flows.run.finished import finished
from flows.run.history import last_runs
from flows.track.addresses import shown
from flows.track.labels import read_labels

log = logging.getLogger(__name__)

FLOWS = {
    "build-dataset": "flows.build_dataset:build_dataset",
    "distill": "flows.distill:distill",
    "evaluate": "flows.evaluate:evaluate",
    "reproduce": "flows.reproduce:reproduce",
    "baselines": "flows.baselines:baselines",
    "adapt-style": "flows.adapt_style:adapt_style",
    "ablate": "flows.lab.ablate:ablate",
    "claims": "flows.lab.claims:claims",
    "edit-video": "flows.edit_video:edit_video",
    "pretrain-embedded": "flows.lab.pretrain_embedded:pretrain_embedded",
}

HERE = {**FLOWS, "repair": "flows.care.repair:repair"}  # flows with a deployment, and those without


def run_here(flow_name: str, profile: str, overrides: list[str], /, **parameters: Any) -> dict[str, Any]:
    """Run a flow in this process. It reports to a Prefect API if one is set or ours is up, and needs none.

    A flow with nothing to do returns before anything is started: there is then no run of it in Prefect and MLflow.
    """
    settings = load_settings(profile, overrides)  # report mistakes in the settings before anything is started
    read_labels(*(parameters.get(label) for label in ("name", "note", "tags")))  # a mistake, with nothing to do, too
    outcome = finished(flow_name, profile, overrides, parameters)
    if outcome is not None:
        return outcome
    import httpx

    from flows.run import server
    from flows.track.mlflow_store import check_named

    root = data_root()
    check_named(settings)
    api_url = server.find_api(root)
    # Prefect reads its environment when it is imported, so this comes first.
    os.environ.update(server.without_server(root) if api_url is None else server.environment(root, api_url))
    flow = load_flow(HERE[flow_name])
    plain = getattr(flow, "fn", flow)
    if api_url is not None and flow_name in first_look.LOOKED_AT:
        first_look.look(plain, profile=profile, overrides=overrides, **parameters)
    run = plain if api_url is None else flow
    began = datetime.now(UTC).replace(microsecond=0)
    try:
        done: dict[str, Any] = run(profile=profile, overrides=overrides, **parameters)
    except httpx.TransportError as error:
        if api_url is None or server.healthy(api_url):
            raise
        return find_outcome(root, flow_name, began, api_url, error)
    return done


def load_flow(entry: str) -> Any:
    """Import a flow, and Prefect first. Raises UserError where Prefect cannot read its settings."""
    from flows.run import server

    server.import_prefect()
    module, function = entry.split(":")
    return getattr(importlib.import_module(module), function)


def find_outcome(root: Path, name: str, began: datetime, api_url: str, error: BaseException) -> dict[str, Any]:
    """Outcome of a run whose Prefect server went away: Prefect raises `error` instead, at the very end.

    Raises the mistake that ended the run, if it did not complete.
    """
    earlier: BaseException | None = error
    while earlier is not None:
        if isinstance(earlier, MISTAKES):
            raise earlier from None
        earlier = earlier.__cause__ or earlier.__context__
    for note in last_runs(root):
        if note.flow == name and note.state == "completed" and datetime.fromisoformat(note.ended) >= began:
            log.warning("the run is complete; Prefect's page of it says so after the next start of the server: make up")
            return note.outcome
    hint = "make up, then the same command: what is finished is kept"
    raise UserError("the Prefect server went away during the run", prefect=shown(api_url), hint=hint) from error


def read_parameters(name: str, given: Sequence[str]) -> dict[str, Any]:
    """Read values of `name=value` as YAML. Raises UserError for unknown, missing or wrong parameters of the flow."""
    from prefect.exceptions import ParameterTypeError

    flow = load_flow(FLOWS[name])
    known = inspect.signature(getattr(flow, "fn", flow)).parameters
    kinds = get_type_hints(getattr(flow, "fn", flow))
    values = {key: _read(value, kinds.get(key)) for key, _, value in (each.partition("=") for each in given)}
    missing = [key for key, each in known.items() if each.default is each.empty and key not in values]
    unknown = sorted(values.keys() - known.keys())
    if missing or unknown:
        found = {"missing": ", ".join(missing), "unknown": ", ".join(unknown), "parameters": ", ".join(known)}
        hint = f"stillroom run {name} --param {(missing or list(known))[0]}=VALUE"
        raise UserError(f"wrong parameters for the flow {name}", **{k: v for k, v in found.items() if v}, hint=hint)
    try:
        flow.validate_parameters(values)
    except ParameterTypeError as error:
        wrong = [line.strip(" -") for line in str(error).splitlines()[1:]]
        hint = f"stillroom run {name} --param NAME=VALUE, the value as YAML: 3, true, [a, b]"
        raise UserError(f"wrong value of a parameter of the flow {name}", found="; ".join(wrong), hint=hint) from None
    return values


def _read(text: str, kind: Any) -> Any:
    """Read a value as YAML; what is to be a text stays one, were it a digest of digits."""
    value = yaml.safe_load(text)
    return value if value is None or str not in (kind, *get_args(kind)) else text


def check_will_run(deployment: str, root: Path, api_url: str, take_over: bool) -> None:
    """Raise UserError unless this checkout or a worker of the deployment's work pool would execute the run."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    from flows.run import server
    from flows.run.serving import check_served_here

    if check_served_here(root, api_url, take_over):
        return
    if take_over:
        server.start_deployments(root, api_url)
        return
    with get_client(sync_client=True) as client:
        try:
            pool = client.read_deployment_by_name(deployment).work_pool_name
        except ObjectNotFound:
            pool = None
    if pool is None:
        raise UserError(
            "no process serves the deployments, so the run would never start", prefect=shown(api_url), hint="make up"
        )


def trigger(
    name: str,
    profile: str,
    overrides: list[str],
    watch: bool,
    force: list[str],
    given: Sequence[str] = (),
    take_over: bool = False,
    say: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Start the deployment `<name>/<profile>` on the Prefect server; with `watch`, say what it does until its end.

    given: further parameters of the flow, each `name=value`.  take_over: if another checkout serves the
    deployments, end that and serve them from here.
    """
    if name not in FLOWS:
        raise UserError(f"there is no flow '{name}'", flows=", ".join(FLOWS))
    from flows.run import server

    load_settings(profile, overrides)
    root = data_root()
    api_url = server.find_api(root)
    if api_url is None:
        raise UserError("no Prefect server is up", hint="make up, or set PREFECT_API_URL")
    server.use_api(root, api_url)
    from prefect.deployments import run_deployment

    check_will_run(f"{name}/{profile}", root, api_url, take_over)
    parameters = {"profile": profile, "overrides": overrides} | ({"force": force} if force else {})
    parameters |= read_parameters(name, given)
    started: Any = run_deployment(f"{name}/{profile}", parameters=parameters, timeout=0)
    page = f"{shown(api_url).removesuffix('/api')}/runs/flow-run/{started.id}"
    if watch:
        from flows.run.watching import watch as watch_run

        say(page)
        started = watch_run(started.id, page, say)
    state = started.state
    return {
        "flow": name,
        "deployment": f"{name}/{profile}",
        "flow_run_id": str(started.id),
        "state": str(state.type.value) if state else "SCHEDULED",
        "message": state.message if state else None,
        "page": page,
    }
