"""The student: one pass from portrait and prompt to the edited triplane."""

from __future__ import annotations

import torch

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from tasks.baselines.measuring import Method, declare, run_method
from tasks.baselines.protocol import Edited, Networks, Portrait, Prompt

METHOD = Method("ours", "ours", False, ("mae",))


def run(work: Work) -> Summary:
    return run_method(work, METHOD, edit)


STAGE = declare(METHOD, run)


def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
    """Edit by text or picture. The student has no reconstruction of its own."""
    assert networks.mae is not None
    with torch.no_grad():
        if prompt.picture is not None:
            tokens, kind = networks.mae.tokens(prompt.picture[None]), "image"
        else:
            assert prompt.text is not None
            tokens, kind = networks.clip.text_tokens([prompt.text]), "text"
        triplane = networks.student.encode(portrait.image, tokens.to(portrait.device), kind)
    return Edited(networks.student, triplane)
