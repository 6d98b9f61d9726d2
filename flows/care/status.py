"""State of a data root as a document: partitions made, last runs, services and weights."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_catalog.workspace import Workspace
from flows.ask.funnels import read_funnels
from flows.ask.plan import find_made, open_plan


def describe_models(workspace: Workspace) -> dict[str, Any]:
    """Describe the models of the profile's world: source, digest, and whether the weights match."""
    from models.zoo import zoo

    settings = workspace.settings
    rows = [{"model": row.pop("name"), **row} for row in zoo.describe(settings.world)]
    return {"profile": workspace.profile, "world": settings.world, "models": rows}


def describe_status(workspace: Workspace) -> dict[str, Any]:
    """Describe what is made, what ran last, which services are up."""
    from flows.run import active
    from flows.run.history import last_runs
    from flows.run.processes import find_service

    root = workspace.root
    plan = open_plan(workspace.settings, root)
    rows = []
    for stage in plan.stages:
        made = [step.entry for step in plan.by_stage[stage.name] if step.made and step.entry]
        counts = {name: sum(getattr(entry, name) for entry in made) for name in ("samples", "rejected", "bytes")}
        partitions = {"partitions": len(plan.by_stage[stage.name]), "cached": len(made)}
        rows.append({"stage": stage.name, **partitions, **counts})
    dataset, student = find_made(plan.catalog, plan.settings)
    places = {"prefect": root / "prefect", "deployments": root / "prefect", "mlflow": root / "mlflow"}
    names = {"prefect": "server", "deployments": "deployments", "mlflow": "ui"}
    services = {name: find_service(folder, names[name]) for name, folder in places.items()}
    return {
        "profile": workspace.profile,
        "data_root": str(root),
        "dataset": dataset,
        "student": student,
        "stages": rows,
        "funnels": read_funnels(plan),
        "failed": {step.key: step.failure for step in plan.steps.values() if step.failure},
        "running": [asdict(run) for run in active.running(root)],
        "killed": [asdict(run) for run in active.killed(root)],
        "runs": [asdict(note) for note in last_runs(root)],
        "services": {name: service.url if service else None for name, service in services.items()},
        "free_bytes": shutil.disk_usage(root if root.exists() else Path.cwd()).free,
    }
