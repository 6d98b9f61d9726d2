"""What is there and what would run, as documents for the command line. Imports no engine."""

import shutil
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_catalog.catalog import accept
from data_catalog.errors import UserError
from data_catalog.places import data_root, shown_path
from data_catalog.plan import Plan, Step, make_plan
from data_catalog.settings import Settings, load_settings
from data_catalog.stage import Partition, Stage
from data_catalog.store import Store
from data_catalog.styles import list_styles, read_style, style_path

REASONS_SHOWN = 8  # of a stage, most frequent first


def open_plan(settings: Settings, root: Path, pins: dict[str, str] | None = None) -> Plan:
    """The plan of all stages for these settings on this data root."""
    from models import zoo
    from tasks.portraits import blocks
    from tasks.stages import STAGES

    return make_plan(
        STAGES,
        settings,
        Store(root),
        list_styles(settings),
        blocks(settings),
        lambda name: zoo.digest(name, settings.world),
        model_modules=zoo.modules,
        pins=pins,
    )


def describe_plan(profile: str, overrides: list[str]) -> dict[str, Any]:
    """Counts and reasons per stage, and what past records say it will cost."""
    started = time.perf_counter()
    plan = open_plan(load_settings(profile, overrides), data_root())
    rows = stage_rows(plan)
    estimates = [_estimate(plan, stage.name) for stage in plan.stages]
    known = [estimate for estimate in estimates if estimate is not None]
    estimate = {"seconds": sum(e[0] for e in known), "bytes": sum(e[1] for e in known)}
    spent = round(time.perf_counter() - started, 3)
    return {"profile": profile, "stages": rows, "estimate": estimate, "notes": _notes(plan), "seconds": spent}


def stage_rows(plan: Plan) -> list[dict[str, Any]]:
    """Counts and reasons, one row a stage."""
    return [_stage_row(plan, stage) for stage in plan.stages]


def _stage_row(plan: Plan, stage: Stage) -> dict[str, Any]:
    steps = plan.by_stage[stage.name]
    states = Counter(step.state for step in steps)
    reasons = Counter(str(reason) for step in steps for reason in step.reasons)
    return {
        "stage": stage.name,
        "version": stage.version,
        "partitions": len(steps),
        "cached": states["cached"],
        "run": states["run"],
        "maybe": states["maybe"],
        "samples": sum(step.entry.samples for step in steps if step.made and step.entry),
        "reasons": [
            reason if count == 1 else f"{reason} ({count} partitions)"
            for reason, count in reasons.most_common(REASONS_SHOWN)
        ],
    }


def _estimate(plan: Plan, stage: str) -> tuple[float, float] | None:
    """(seconds, bytes) of what runs, by the mean of this stage's past partitions; None without any."""
    waiting = [step for step in plan.by_stage[stage] if not step.made]
    past = [entry for step in plan.by_stage[stage] for entry in plan.catalog.history(step.key)]
    if not waiting or not past:
        return None
    scale = len(waiting) / len(past)
    workers = plan.settings.run.workers if any(s.split_by for s in plan.stages if s.name == stage) else 1
    return scale * sum(entry.seconds for entry in past) / workers, scale * sum(entry.bytes for entry in past)


def _notes(plan: Plan) -> list[str]:
    """What the plan lets pass and a person may want to know: partitions kept although their code changed."""
    kept = Counter((step.partition.stage, step.note) for step in plan.steps.values() if step.note)
    return [f"{stage}: {note} ({count} partitions)" for (stage, note), count in kept.items()]


def explain_partition(key: str, profile: str, overrides: list[str]) -> dict[str, Any]:
    """The state of one partition and every difference to what it was made from."""
    plan = open_plan(load_settings(profile, overrides), data_root())
    step = find_step(plan, key)
    changed = [reason._asdict() for reason in step.reasons]
    return {"partition": step.key, "state": step.state, "changed": changed, "now": plan.now(step)}


def find_step(plan: Plan, key: str) -> Step:
    """The step of a partition named by the user."""
    name = Partition.parse(key).key
    if name not in plan.steps:
        stage = name.partition("/")[0]
        near = [step.key for step in plan.by_stage.get(stage, [])][:3]
        hint = f"for example {', '.join(near)}" if near else f"stages: {', '.join(plan.by_stage)}"
        raise UserError(f"there is no partition '{key}' in this profile", hint=hint)
    return plan.steps[name]


def accept_stage(stage: str, profile: str, overrides: list[str]) -> dict[str, Any]:
    """Let every record of a stage name the present code, so that it is not made again for a refactoring."""
    plan = open_plan(load_settings(profile, overrides), data_root())
    if stage not in plan.by_stage:
        raise UserError(f"there is no stage '{stage}'", stages=", ".join(plan.by_stage))
    source = plan.source(stage).digest
    entries = [entry for step in plan.by_stage[stage] for entry in plan.catalog.history(step.key)]
    for entry in entries:
        accept(plan.store, entry.partition, plan.catalog.folder(entry).name, source)
    return {"stage": stage, "accepted": len(entries), "source_digest": source}


def describe_styles(profile: str, overrides: list[str]) -> dict[str, Any]:
    """Style files that the settings choose."""
    settings = load_settings(profile, overrides)
    paths = [style_path(settings, slug) for slug in list_styles(settings)]
    rows = [{"style": p.stem, "seed_prompt": read_style(p).seed_prompt, "file": shown_path(p)} for p in paths]
    return {"profile": profile, "styles": rows}


def describe_models(profile: str, overrides: list[str]) -> dict[str, Any]:
    """Models of the profile's world: source, digest, and whether the weights are there as promised."""
    from models import zoo

    settings = load_settings(profile, overrides)
    rows = [{"model": row.pop("name"), **row} for row in zoo.describe(settings.world)]
    return {"profile": profile, "world": settings.world, "models": rows}


def describe_status(profile: str, overrides: list[str]) -> dict[str, Any]:
    """What is made, what ran last, which services are up."""
    from flows.history import last_runs
    from flows.processes import find_service

    root = data_root()
    plan = open_plan(load_settings(profile, overrides), root)
    rows = []
    for stage in plan.stages:
        made = [step.entry for step in plan.by_stage[stage.name] if step.made and step.entry]
        counts = {name: sum(getattr(entry, name) for entry in made) for name in ("samples", "rejected", "bytes")}
        partitions = {"partitions": len(plan.by_stage[stage.name]), "cached": len(made)}
        rows.append({"stage": stage.name, **partitions, **counts})
    latest = root / "datasets" / "latest"
    places = {"prefect": root / "prefect", "deployments": root / "prefect", "mlflow": root / "mlflow"}
    names = {"prefect": "server", "deployments": "deployments", "mlflow": "ui"}
    services = {name: find_service(folder, names[name]) for name, folder in places.items()}
    return {
        "profile": profile,
        "data_root": str(root),
        "dataset": latest.read_text().strip() if latest.exists() else None,
        "stages": rows,
        "runs": [asdict(note) for note in last_runs(root)],
        "services": {name: service.url if service else None for name, service in services.items()},
        "free_bytes": shutil.disk_usage(root if root.exists() else Path.cwd()).free,
    }


def verify_store(profile: str, overrides: list[str]) -> dict[str, Any]:
    """Hash everything below the data root again, and note for later plans what is damaged."""
    from data_catalog.verify import note_damage, verify

    load_settings(profile, overrides)
    started = time.perf_counter()
    seen = verify(data_root())
    note_damage(data_root(), seen.damaged)
    return {
        "checked": seen.records,
        "files": seen.files,
        "damaged": [asdict(damage) for damage in seen.damaged],
        "seconds": round(time.perf_counter() - started, 3),
    }
