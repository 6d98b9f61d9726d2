"""Further attempts for a style that keeps too few samples.

An attempt makes all training portraits of a block again, with other seeds and later other prompts. It does not depend
on which of them passed the gates: a moved threshold may ask for more or fewer attempts, but never for an image that
was made before.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from data_catalog.config.errors import UserError
from data_catalog.config.settings import SelectSettings
from data_catalog.store.stage import Partition
from tasks.gating.gates import Candidate

log = logging.getLogger(__name__)

Advise = Callable[[Mapping[str, int], int, int], list[str]]


def ask_for_more(
    style: str, judged: Sequence[Candidate], settings: SelectSettings, advise: Advise, repeatable: bool = True
) -> list[str]:
    """Places of the attempts to make (`0002-a1`), as many as the yield so far lets expect to be enough.

    A block is attempted again only after all others had as many attempts; among the rest, blocks with the most
    portraits without a kept sample come first. A style that is still short after `select.attempts`, or whose edits came
    with the portraits and are not `repeatable`, is stopped, or stays short by `select.on_low_yield`.

    advise: from the samples by the reason of their loss, and values of select.keep and select.attempts that would be
    enough (0 for none), to hints.
    """
    learned = [row for row in judged if row.split == "train"]
    kept = sum(row.kept for row in learned)
    if settings.keep is None or kept >= settings.keep or not learned:
        return []
    sizes = Counter(row.block for row in learned if not row.attempt)
    done = {block: max(row.attempt for row in learned if row.block == block) for block in sizes}
    least = min(done.values()) + 1
    if not repeatable or least >= settings.attempts:
        if settings.on_low_yield == "leave_out":
            log.warning("style %s keeps %d training samples, fewer than select.keep=%d", style, kept, settings.keep)
            return []
        raise _stopped(style, kept, learned, settings, advise, repeatable)
    expected, places = float(kept), []
    for block in sorted(sizes, key=lambda block: (-_uncovered(learned, block), block)):
        if done[block] < least and expected < settings.keep:
            places.append(Partition("", None, block, least).place or "")
            expected += sizes[block] * kept / len(learned)
    return sorted(places)


def _uncovered(learned: Sequence[Candidate], block: int) -> int:
    """Count the portraits of a block without a kept sample."""
    mine = [row for row in learned if row.block == block]
    return len({row.portrait_id for row in mine} - {row.portrait_id for row in mine if row.kept})


def _stopped(
    style: str,
    kept: int,
    learned: Sequence[Candidate],
    settings: SelectSettings,
    advise: Advise,
    repeatable: bool,
) -> UserError:
    attempts, lost = Counter(row.attempt for row in learned), _reasons(learned)
    wanted = settings.keep or 0
    more = settings.attempts + math.ceil((wanted - kept) * len(attempts) / kept) if repeatable and kept else 0
    passed = Counter(row.attempt for row in learned if row.kept)
    end = (
        "and has used up its attempts"
        if repeatable
        else "and its edits, which came with the portraits, are all there are"
    )
    return UserError(
        f"style {style} keeps {kept} training samples, fewer than select.keep, {end}",
        kept=", ".join(f"attempt {number}: {passed[number]} of {attempts[number]}" for number in sorted(attempts)),
        lost=", ".join(f"{reason} {count}" for reason, count in lost.most_common()) or "none",
        expected=f"{wanted} after at most {settings.attempts if repeatable else 1} attempts",
        hint="\n".join(advise(lost, kept, more)),
    )


def _reasons(rows: Sequence[Candidate]) -> Counter[str]:
    return Counter(row.reason for row in rows if row.reason)
