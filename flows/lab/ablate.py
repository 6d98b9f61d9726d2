"""The flow ablate: how many styles a base should know, and how many pairs a new style needs (3DPE, Tables 2 and 3)."""

from typing import Any

from prefect import flow

from flows.lab.ablation import adapt_arms, gather_styles, publish_ablation, train_base
from tasks.lab.ablation import draw_styles, list_arms


@flow(name="ablate", flow_run_name="ablate {profile}", validate_parameters=True)
def ablate(
    profile: str = "demo", overrides: list[str] | None = None, style: str | None = None, seeds: int = 3
) -> dict[str, Any]:
    """Train bases of 3, 6 and 10 styles, adapt them to one more from 2 to 50 pairs, and write a page of what came out.

    `style`: the one to adapt to; null draws it. Everything is kept as it is made: a run that was killed goes on.
    """
    chosen = gather_styles(profile, overrides or [])
    novel, styles = draw_styles(chosen.known, style)
    bases = [train_base(profile, chosen.overrides, each) for each in styles]
    results = adapt_arms(profile, chosen.overrides, novel, bases, list_arms(styles, seeds))
    return publish_ablation(profile, overrides or [], novel, bases, results)
