"""The student: one pass from portrait and prompt to the edited triplane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from tasks.baselines.measuring import Method, declare, run_method
from tasks.baselines.protocol import Edited, Networks, Portrait, Prompt
from tasks.training.reading import image_tokens, text_tokens

if TYPE_CHECKING:
    from models.three_d.student import PromptKind

METHOD = Method("ours", "ours", False, ("mae",))


def run(work: Work) -> Summary:
    return run_method(work, METHOD, edit)


STAGE = declare(METHOD, run)


def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
    """Edit by text or picture. The student has no reconstruction of its own."""
    kind: PromptKind
    if prompt.picture is not None:
        tokens, kind = image_tokens(networks.student, networks.mae, prompt.picture[None]), "image"
    else:
        assert prompt.text is not None
        tokens, kind = text_tokens(networks.student, networks.clip, [prompt.text]), "text"
    with torch.no_grad():
        triplane = networks.student.encode(portrait.image, tokens.to(portrait.device), kind)
    return Edited(networks.student, triplane)
