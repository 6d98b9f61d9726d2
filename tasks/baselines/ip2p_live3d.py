"""IP2P + Live3D: the editor's picture, lifted by the teacher; a picture as the prompt is put into words first."""

from __future__ import annotations

import torch

from data_catalog.config.settings import Settings
from data_catalog.store.stage import Summary, Work
from models.pixels import signed
from tasks.baselines.measuring import Method, declare, editor_steps, run_method
from tasks.baselines.protocol import Edited, Networks, Portrait, Prompt

INSTRUCTION = "turn them into {caption}"


METHOD = Method("ip2p-live3d", "IP2P + Live3D", False, ("editor", "captioner"))


def run(work: Work) -> Summary:
    return run_method(work, METHOD, edit)


STAGE = declare(METHOD, run)


def edit(networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited:
    """Edit by text, or by the caption of a picture."""
    assert networks.editor is not None
    own = settings.edit
    text = prompt.text
    if prompt.picture is not None:
        assert networks.captioner is not None
        text = INSTRUCTION.format(caption=networks.captioner.caption(prompt.picture))
    assert text is not None
    scales = (own.guidance_scale, own.image_guidance_scale)
    steps = editor_steps(settings)
    edited = networks.editor.edit(
        portrait.picture[None], [text], [portrait.seed], steps, *scales, scheduler=own.scheduler
    )
    with torch.no_grad():
        triplane, plain = (networks.teacher.encode(each) for each in (signed(edited, portrait.device), portrait.image))
    return Edited(networks.teacher, triplane, Edited(networks.teacher, plain))
