"""Yield funnel of each style: the pseudo-labels left after each check. Imports no engine."""

import json
from typing import TYPE_CHECKING, Any

from flows.track.mlflow_runs import COUNT

if TYPE_CHECKING:
    from data_catalog.plan.plan import Plan

FUNNEL = "funnel.json"  # file of the stage select

Document = dict[str, Any]


def read_funnels(plan: "Plan") -> list[Document]:
    """Read the funnel of each style's nearest selection; `current` tells whether it belongs to these settings."""
    rows = []
    for step in plan.by_stage.get("select", []):
        current = step.made and step.entry is not None
        for entry in filter(None, [step.entry if current else step.near]):
            path = plan.catalog.folder(entry) / FUNNEL
            if path.is_file():
                funnel = json.loads(path.read_text(encoding="utf-8"))["funnel"]
                rows.append({"style": step.partition.style, "current": current, **funnel})
    return rows


def flat_funnels(funnels: list[Document]) -> list[Document]:
    """Return a row for each style with a column for each step, for the tables of Prefect's and MLflow's pages."""
    return [
        {
            "style": funnel["style"],
            **{each["step"]: each["left"] for each in funnel["steps"]},
            "yield": round(funnel["yield"], 4),
            "attempts": len(funnel.get("attempts", [])),
            "lost": told_reasons(funnel),
        }
        for funnel in funnels
    ]


def funnel_metrics(funnels: list[Document]) -> dict[str, float]:
    """Return the samples left by each step of each style, such as `count/funnel.zombie.kept`, and its yield."""
    metrics: dict[str, float] = {}
    for funnel in funnels:
        name = f"funnel.{funnel['style']}"
        metrics |= {f"{COUNT}{name}.{each['step'].replace(' ', '_')}": float(each["left"]) for each in funnel["steps"]}
        metrics[f"{name}.yield"] = float(funnel["yield"])
    return metrics


def told_reasons(funnel: Document) -> str:
    """Return the reasons of losses, the most frequent first, such as `min_identity 3, truncated 1`."""
    told = sorted(funnel["reasons"].items(), key=lambda each: -each[1])
    return ", ".join(f"{reason} {count}" for reason, count in told)


def kept_line(funnels: list[Document]) -> str:
    """`kept of made: clown 40 of 40, zombie 31 of 52 in 2 attempts`; a star marks an earlier selection."""
    words = []
    for funnel in funnels:
        attempts = len(funnel.get("attempts", []))
        more = f" in {attempts} attempts" if attempts > 1 else ""
        star = "" if funnel["current"] else "*"
        words.append(f"{funnel['style']}{star} {funnel['steps'][-1]['left']} of {funnel['steps'][0]['left']}{more}")
    counts = {word.partition(" ")[2] for word in words}
    if len(words) > 1 and len(counts) == 1 and all(funnel["current"] for funnel in funnels):
        return f"kept of made: {counts.pop()} in each of {len(words)} styles"
    return f"kept of made: {', '.join(words)}"
