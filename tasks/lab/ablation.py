"""Variables of the paper's ablations (3DPE, Tables 2 and 3): the styles of the base, and the number of pairs.

Their students and deltas have names of their own, `base` and `arm`, so that the newest student is never one with three
styles. On a GPU an arm's budget is of the wall's clock, with the device synchronised, as in the paper. On a CPU it is
CPU time of one thread, since compared arms may run beside other work.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_catalog.config.errors import UserError
from data_catalog.samples.seeds import derive
from data_catalog.store.stage import Need, Summary, Work
from tasks import distill
from tasks.adaptation import adapt

BASE_STYLES = (3, 10, 20)  # Table 2
FEW_STYLES = (3, 6, 10)  # in a world with too few for that
PAIRS = (2, 5, 10, 20, 50)  # Table 3
USUAL_PAIRS = 10  # of Table 2


@dataclass(frozen=True)
class Arm:
    """Adaptation: a base of some styles, a number of pairs, and the seed that draws them."""

    styles: int
    pairs: int
    seed: int


def run(work: Work) -> Summary:
    """Adapt: on a GPU by the clock of the wall, on a CPU on one thread, by the clock of its work."""
    from tasks.evaluation.stopwatch import one_thread

    if work.settings.run.device != "cpu":
        return adapt.run(work)
    with one_thread():
        return adapt.run(work, time.process_time)


BASE = replace(distill.STAGE, name="base")
ARM = replace(adapt.STAGE, name="arm", needs=(Need("pairs"), Need("dataset"), Need("base")), run=run)


def draw_styles(known: Sequence[str], novel: str | None) -> tuple[str, list[list[str]]]:
    """Return the style to adapt to, and the styles of each base; each base is part of the next.

    novel: null draws it.  The order is drawn by the names, once for ever, not chosen by what comes out best. A world
    with fewer styles than the largest base has one base of all that are left.
    """
    order = sorted(known, key=lambda style: derive("ablate", style))
    chosen = novel or order[0]
    if chosen not in order:
        raise UserError(f"there is no style '{chosen}' to adapt to", styles=", ".join(sorted(known)))
    order.remove(chosen)
    wanted = BASE_STYLES if len(order) >= BASE_STYLES[-1] else FEW_STYLES
    sizes = sorted({min(size, len(order)) for size in wanted})
    if len(sizes) < 2:
        raise UserError("there are too few styles to compare bases", found=len(known), expected="5 or more")
    return chosen, [sorted(order[:size]) for size in sizes]


def list_arms(bases: Sequence[Sequence[str]], seeds: int) -> list[Arm]:
    """The arms of both tables, each once: Table 3 takes the largest base. Seed by seed, so that an end in the middle
    leaves whole tables of fewer seeds."""
    largest = len(bases[-1])
    arms: dict[Arm, None] = {}
    for seed in range(seeds):
        arms |= dict.fromkeys(Arm(len(styles), USUAL_PAIRS, seed) for styles in bases)
        arms |= dict.fromkeys(Arm(largest, pairs, seed) for pairs in PAIRS)
    return list(arms)
