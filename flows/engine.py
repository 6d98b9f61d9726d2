"""Start a flow: in this process, or as a Prefect deployment."""

import importlib
import os
from typing import Any

from data_catalog.errors import UserError
from data_catalog.places import data_root
from data_catalog.settings import load_settings
from flows import server

FLOWS = {
    "build-dataset": "flows.build_dataset:build_dataset",
    "distill": "flows.distill:distill",
    "evaluate": "flows.evaluate:evaluate",
    "reproduce": "flows.reproduce:reproduce",
    "adapt-style": "flows.adapt_style:adapt_style",
    "ablate": "flows.ablate:ablate",
    "edit-video": "flows.edit_video:edit_video",
    "pretrain-embedded": "flows.pretrain_embedded:pretrain_embedded",
}

HERE = {**FLOWS, "repair": "flows.repair:repair"}  # also what has no deployment


def run_here(name: str, profile: str, overrides: list[str], **parameters: Any) -> dict[str, Any]:
    """Run a flow in this process. It reports to a Prefect API if one is set or ours is up, and needs none."""
    load_settings(profile, overrides)  # a mistake in them is said before anything is started
    root = data_root()
    api_url = server.find_api(root)
    # Prefect reads its environment when it is imported, so this comes first.
    os.environ.update(server.QUIET if api_url is None else server.environment(root, api_url))
    module, function = HERE[name].split(":")
    flow = getattr(importlib.import_module(module), function)
    run = getattr(flow, "fn", flow) if api_url is None else flow
    outcome: dict[str, Any] = run(profile=profile, overrides=overrides, **parameters)
    return outcome


def trigger(name: str, profile: str, overrides: list[str], watch: bool, force: list[str]) -> dict[str, Any]:
    """Start the deployment `<name>/<profile>` on the Prefect server; with `watch`, wait for its end."""
    if name not in FLOWS:
        raise UserError(f"there is no flow '{name}'", flows=", ".join(FLOWS))
    load_settings(profile, overrides)
    root = data_root()
    api_url = server.find_api(root)
    if api_url is None:
        raise UserError("no Prefect server is up", hint="make up, or set PREFECT_API_URL")
    os.environ.update(server.environment(root, api_url))
    from prefect.deployments import run_deployment

    parameters = {"profile": profile, "overrides": overrides} | ({"force": force} if force else {})
    started: Any = run_deployment(f"{name}/{profile}", parameters=parameters, timeout=None if watch else 0)
    state = started.state
    return {
        "flow": name,
        "deployment": f"{name}/{profile}",
        "flow_run_id": str(started.id),
        "state": str(state.type.value) if state else "SCHEDULED",
        "message": state.message if state else None,
        "page": f"{api_url.removesuffix('/api')}/runs/flow-run/{started.id}",
    }
