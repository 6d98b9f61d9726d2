"""Missing files and keys of a profile of the paper's world, the way to get them, and a forecast of the whole job."""

import os
from dataclasses import asdict, dataclass
from typing import Any

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import PROCEDURAL, Settings
from data_catalog.config.styles import list_styles
from data_catalog.store.stage import Stage
from flows.ask.forecast import SPEED, count_tested, forecast, keep_note, with_count
from flows.ask.price import Price

PORTRAITS = (
    "EG3D's FFHQ: dataset_preprocessing/ffhq/runme.py of NVlabs/eg3d makes a folder or zip of 512x512 pictures with "
    "dataset.json; put its path into portraits.source"
)


@dataclass(frozen=True)
class Missing:
    """Missing file or key. `fetched`: it is downloaded at its first use, if this machine reaches the hub."""

    what: str
    where: str  # the setting or file that would name it
    get: str
    fetched: bool = False


def find_missing(settings: Settings) -> list[Missing]:
    """List portraits, weights and keys that the settings need and that are missing."""
    return [*_portraits(settings), *_weights(settings), *_keys(settings)]


def outlook(profile: str, overrides: list[str]) -> dict[str, Any] | None:
    """Return the missing files and a forecast; None where a plan is possible. A plan itself needs the files."""
    settings = load_settings(profile, overrides)
    if settings.world != "paper":
        return None
    missing = find_missing(settings)
    hindering = [each for each in missing if not each.fetched and each.where != "OPENAI_API_KEY"]
    if not hindering:
        return None
    rows = _forecast_rows(settings, "waits for " + ", ".join(each.what for each in hindering))
    total = _total(rows)
    return {
        "profile": profile,
        "stages": rows,
        "missing": [asdict(each) for each in missing],
        "estimate": total.document(),
        "at_most": total.document(),
        "gpu_hours": round(sum(row["price"]["seconds"] for row in rows) / 3600, 1),
        "forecast": SPEED,
        "device": settings.run.device,
        "notes": [note for note in [keep_note(settings)] if note],
        "seconds": 0.0,
    }


def disk_needed(settings: Settings) -> int:
    """Return the bytes that the whole job will take."""
    return _total(_forecast_rows(settings, "")).bytes


def _total(rows: list[dict[str, Any]]) -> Price:
    return sum((Price(**row["price"]) for row in rows), Price())


def _portraits(settings: Settings) -> list[Missing]:
    from tasks.sources.opening import open_source

    if settings.portraits.source == PROCEDURAL:
        return []
    try:
        open_source(settings.portraits)
    except UserError as error:
        return [Missing(f"portraits ({error.message})", "portraits.source", PORTRAITS)]
    return []


def _weights(settings: Settings) -> list[Missing]:
    from models.zoo import zoo
    from tasks.stages import STAGES

    missing = []
    needed = {name for stage in STAGES for name in stage.models(settings)}  # a study may need others
    for row in zoo.describe(settings.world):
        if row["name"] not in needed:
            continue
        name, where = row["name"], f"{zoo.registry_file().name}, {settings.world}.{row['name']}"
        if row["state"] == "missing":
            get = row["problem"].splitlines()[-1].strip().removeprefix("hint").strip()
            missing.append(Missing(f"weights {name}", where, get))
        elif row["state"] == "not fetched":
            get = f"fetched at first use, or: stillroom models fetch {name}"
            missing.append(Missing(f"weights {name}", where, get, fetched=True))
    return missing


def _keys(settings: Settings) -> list[Missing]:
    own = settings.prompts
    if own.backend != "openai" or own.base_url or os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY"):
        return []
    get = "set it to a key of yours; or --set prompts.backend=builtin, which needs no model"
    return [Missing("a key for the language model", "OPENAI_API_KEY", get)]


def _forecast_rows(settings: Settings, reason: str) -> list[dict[str, Any]]:
    """Return the rows of a plan with nothing made, one a stage."""
    from tasks.stages import STAGES

    settings, styles = with_count(settings), list_styles(settings)
    return [_forecast_row(stage, settings, styles, reason) for stage in STAGES]


def _forecast_row(stage: Stage, settings: Settings, styles: list[str], reason: str) -> dict[str, Any]:
    count = settings.portraits.count or 0
    blocks = list(range(-(-count // settings.portraits.block_size)))
    partitions, samples = len(stage.partitions(styles, blocks)), expected_samples(stage, settings, len(styles))
    each = forecast(stage.name, settings, count_tested(settings, count, len(styles)))
    assert each is not None
    units = samples if stage.split_by else 1
    price = Price(partitions, samples, each.seconds * units, round(each.bytes * units))
    counts = {"partitions": partitions, "cached": 0, "run": partitions, "maybe": 0, "failed": 0, "samples": 0}
    prices = {"price": price.document(), "price_maybe": Price().document()}
    return {"stage": stage.name, "version": stage.version, **counts, "reasons": [reason], **prices}


def expected_samples(stage: Stage, settings: Settings, styles: int) -> int:
    """Return the samples of a stage if nothing is rejected."""
    count = settings.portraits.count or 0
    if stage.name == "prompts":
        return styles * (settings.prompts.train + settings.prompts.test)
    made = count * styles * (settings.edit.prompts_per_portrait if settings.edit.source == "editor" else 1)
    return count if "style" not in stage.split_by and "block" in stage.split_by else made
