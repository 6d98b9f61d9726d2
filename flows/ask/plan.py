"""Plan and state as documents for the command line. Imports no engine."""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from data_catalog.config.errors import UserError
from data_catalog.config.places import data_root
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.config.styles import list_styles
from data_catalog.plan.plan import Plan, make_plan
from data_catalog.plan.steps import Step
from data_catalog.store.catalog import Catalog
from data_catalog.store.stage import Partition, Stage
from data_catalog.store.store import Store
from flows.ask.forecast import keep_note
from flows.ask.funnels import read_funnels
from flows.ask.left_out import list_left_out
from flows.ask.own import OwnRecords
from flows.ask.price import Price, Prices, tell_price
from flows.ask.unknown import tell_unknown
from tasks.sources.names import counted

REASONS_SHOWN = 8  # of a stage, most frequent first


class PlanShape(NamedTuple):
    """Stages, styles and blocks of a plan."""

    stages: tuple[Stage, ...]
    styles: list[str]
    blocks: list[int]


def whole_shape(settings: Settings) -> PlanShape:
    """Every stage of the main job, every style and every block that the settings choose."""
    from tasks.portraits import blocks
    from tasks.stages import STAGES

    styles = list_styles(settings)
    if not styles:
        raise UserError("prompts.styles=[] leaves no style", hint="name some, or null for every style file")
    return PlanShape(STAGES, styles, blocks(settings))


def open_plan(
    settings: Settings,
    root: Path,
    pins: dict[str, str] | None = None,
    force: Sequence[str] = (),
    shape: PlanShape | None = None,
) -> Plan:
    """The plan for these settings on this data root: of all stages, styles and blocks, or of those of `shape`.

    `force`: stages or partitions to make again.
    """
    from models.zoo import zoo

    chosen = shape or whole_shape(settings)
    return make_plan(
        chosen.stages,
        settings,
        Store(root),
        chosen.styles,
        chosen.blocks,
        lambda name: zoo.digest(name, settings.world),
        model_modules=lambda name: zoo.modules(name, settings.world),
        force=force,
        pins=pins,
        own=OwnRecords(root, settings.profile),
    )


def describe_plan(
    profile: str, overrides: list[str], force: Sequence[str] = (), partitions: bool = False
) -> dict[str, Any]:
    """Counts, reasons and price per stage; with `partitions`, also the state and reasons of each one."""
    started = time.perf_counter()
    plan = open_plan(load_settings(profile, overrides), data_root(), force=force)
    prices, rows = Prices(plan), stage_rows(plan)
    run, maybe = Price(), Price()
    for stage, row in zip(plan.stages, rows, strict=True):
        own = prices.price(stage, "run"), prices.price(stage, "maybe")
        row["price"], row["price_maybe"] = own[0].document(), own[1].document()
        run, maybe = run + own[0], maybe + own[1]
    most = run + maybe
    document = {"profile": profile, "stages": rows, "estimate": run.document(), "at_most": most.document()}
    document["summary"] = tell_price(run, most) or "nothing to run"
    left_out = list_left_out(plan.settings)
    notes = [*(each["line"] for each in left_out), *tell_unknown(plan.settings), *_notes(plan)]
    document |= {"device": plan.settings.run.device, "notes": notes, "funnels": read_funnels(plan)}
    document["left_out"] = left_out
    if partitions:
        document["partitions"] = [
            {"partition": step.key, "state": step.state, "reasons": [str(reason) for reason in step.reasons]}
            for step in plan.steps.values()
        ]
    return {**document, "seconds": round(time.perf_counter() - started, 3)}


def tell_work(plan: Plan, stages: Collection[str]) -> str | None:
    """Say what these stages have to make, and at what price; None where that is nothing."""
    prices, own = Prices(plan), [stage for stage in plan.stages if stage.name in stages]
    run = sum((prices.price(stage, "run") for stage in own), Price())
    return tell_price(run, sum((prices.price(stage, "maybe") for stage in own), run))


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
        "failed": sum(bool(step.failure) for step in steps),
        "samples": sum(step.entry.samples for step in steps if step.made and step.entry),
        "reasons": [
            reason if count == 1 else f"{reason} ({count} partitions)"
            for reason, count in reasons.most_common(REASONS_SHOWN)
        ],
    }


def _notes(plan: Plan) -> list[str]:
    """Return notes for the user: partitions kept although their code changed, and attempts that may be needed."""
    kept = Counter((step.partition.stage, step.note) for step in plan.steps.values() if step.note)
    notes = [f"{stage}: {note} ({counted(count, 'partition')})" for (stage, note), count in kept.items()]
    waiting = [step for step in plan.by_stage.get("select", []) if not step.made]
    if waiting and plan.settings.select.keep is not None:
        what = f"what {counted(len(waiting), 'style')} may need beyond this for select.keep={plan.settings.select.keep}"
        notes.append(f"select: {what} is known once they are judged")
        notes += [note for note in [keep_note(plan.settings)] if note]
    return notes


def find_step(plan: Plan, key: str) -> Step:
    """The step of a partition named by the user."""
    name = Partition.parse(key).key
    if name not in plan.steps:
        stage = name.partition("/")[0]
        near = [step.key for step in plan.by_stage.get(stage, [])][:3]
        hint = f"for example {', '.join(near)}" if near else f"stages: {', '.join(plan.by_stage)}"
        raise UserError(f"there is no partition '{key}' in this profile", hint=hint)
    return plan.steps[name]


def find_made(catalog: Catalog, settings: Settings) -> tuple[str | None, str | None]:
    """Find the digests of the dataset and the student that these settings made; None where there is none."""
    from data_catalog.products.snapshot import snapshot_digest
    from tasks.datasets.made import dataset_of, student_of

    found: list[str | None] = [None, None]
    with suppress(UserError):
        found[0] = snapshot_digest(catalog.folder(dataset_of(catalog, settings)))
        found[1] = student_of(catalog, settings).digest
    return found[0], found[1]
