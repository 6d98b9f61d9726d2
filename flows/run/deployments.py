"""Deployments of prefect.yaml, as Prefect's runner takes them; `prefect deploy` reads the same file by itself."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT, shown_path
from data_catalog.config.profiles import read_yaml_mapping

FILE = PROJECT / "prefect.yaml"
AS_WRITTEN = ("description", "enforce_parameter_schema", "parameters", "paused", "tags", "version")
READ = ("concurrency_limit", "schedule", "schedules", "triggers")  # keys whose values become objects of Prefect's
# The pool is for `prefect deploy`. A process of the runner has no job and no queue.
NAMES = ("entrypoint", "name", "work_pool.name")
FOR_THE_FILE = ("definitions", "deployments", "name", "prefect-version")  # keys at the top with nothing to do
TIMES = ("anchor_date", "cron", "day_or", "interval", "rrule", "timezone")


@dataclass(frozen=True)
class Deployed:
    """Deployment in the file: arguments of RunnerDeployment.from_entrypoint, and keys that it has no use for."""

    given: dict[str, Any]
    left_out: list[str]

    @property
    def label(self) -> str:
        return name_entry(self.given)


def name_entry(entry: Mapping[str, Any]) -> str:
    """Return the name that Prefect gives the deployment: flow/name."""
    return f"{str(entry['entrypoint']).rpartition(':')[2].replace('_', '-')}/{entry['name']}"


async def read_deployments(path: Path = FILE) -> list[Deployed]:
    """Read the file, its placeholders filled in. Raises UserError for a mistake in it."""
    from prefect.utilities.templating import apply_values, resolve_block_document_references, resolve_variables

    document = read_yaml_mapping(path)
    entries = document.get("deployments") or []
    if not isinstance(entries, list):
        raise UserError(f"{shown_path(path)}: deployments is not a list")
    top = sorted(key for key, value in document.items() if key not in FOR_THE_FILE and value)
    found = []
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not entry.get("name") or not entry.get("entrypoint"):
            raise UserError(f"{shown_path(path)}: deployment {number} needs a name and an entrypoint", found=entry)
        filled = await resolve_variables(await resolve_block_document_references(entry))
        found.append(
            _read(path, cast(dict[str, Any], apply_values(filled, dict(os.environ), remove_notset=False)), top)
        )
    return found


def _read(path: Path, entry: Mapping[str, Any], top: list[str]) -> Deployed:
    from prefect.deployments.runner import RunnerDeployment

    given = {name: entry[name] for name in ("entrypoint", "name", *AS_WRITTEN) if entry.get(name) is not None}
    flat = {key: value for key, value in entry.items() if key != "work_pool"}
    try:
        RunnerDeployment(**given)
        given |= _read_objects(entry)
        flat |= {f"work_pool.{key}": value for key, value in dict(entry.get("work_pool") or {}).items()}
    except (ValidationError, TypeError, ValueError) as error:
        said = tell_errors(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{shown_path(path)}, {name_entry(entry)}: Prefect does not take it", says=said) from None
    unused = {*flat} - {*NAMES, *AS_WRITTEN, *READ}
    return Deployed(given, sorted({*(key for key in unused if flat[key]), *top}))


def _read_objects(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return triggers, limit and schedules. Without the key `schedules`, those made on Prefect's pages stay."""
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.events import DeploymentTriggerTypes

    limit = entry.get("concurrency_limit")
    if not isinstance(limit, int | None):
        limit = _build("concurrency_limit", ConcurrencyLimitConfig, limit)
    found = {
        "triggers": [_build("triggers", DeploymentTriggerTypes, each) for each in entry.get("triggers") or []],
        "concurrency_limit": limit,
    }
    given = entry["schedules"] if "schedules" in entry else entry.get("schedule") and [entry["schedule"]]
    return found if given is None else found | {"schedules": [_read_schedule(each) for each in given]}


def _read_schedule(given: Any) -> Any:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule

    if not isinstance(given, dict):
        raise TypeError(f"schedules: {given} is not a mapping")
    kinds = {"cron": CronSchedule, "interval": IntervalSchedule, "rrule": RRuleSchedule}
    named = [kind for name, kind in kinds.items() if given.get(name)]
    if len(named) != 1:
        raise ValueError(f"schedules: one of {', '.join(kinds)} was expected in {given}")
    times = {key: value for key, value in given.items() if key in TIMES and value is not None}
    more = {key: value for key, value in given.items() if key not in TIMES}
    return _build("schedules", DeploymentScheduleCreate, more | {"schedule": _build("schedules", named[0], times)})


def _build(what: str, kind: Any, given: Any) -> Any:
    """Return Prefect's object. Raises ValueError for keys that it does not have, which Prefect would pass over."""
    try:
        built = TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        raise ValueError(f"{what}: {tell_errors(error)}") from None
    unknown = sorted({*given} - {*type(built).model_fields})
    if unknown:
        raise ValueError(f"{what}: unknown {', '.join(unknown)}; there are {', '.join(type(built).model_fields)}")
    return built


def tell_errors(error: ValidationError) -> str:
    """Return the first mistakes that were found, each with its key."""
    named = ((".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()[:3])
    return "; ".join(f"{key}: {said}" if key else said for key, said in named)


def tell_left_out(deployed: list[Deployed]) -> str:
    """Say by name what the file says and `make up` does not do; empty where there is nothing."""
    told: dict[str, list[str]] = {}
    for each in deployed:
        if each.left_out:
            told.setdefault(", ".join(each.left_out), []).append(each.label)
    lines = [f"{keys} ({names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)})" for keys, names in told.items()]
    return f"prefect.yaml: only `prefect deploy` and a worker heed {'; '.join(lines)}" if lines else ""
