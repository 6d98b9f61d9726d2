"""Memory that a training at the paper's size needs of a GPU, by counted bytes, against the cards of this machine."""

from dataclasses import replace
from typing import NamedTuple

from data_catalog.config.settings import Settings

# Bytes in float32: teacher, CLIP ViT-L/14, MAE and LPIPS, which every process holds.
FROZEN_BYTES = 4 * (83.7e6 + 427.6e6 + 85.8e6 + 2.5e6)


class Need(NamedTuple):
    """Bytes of one GPU for micro-batches of some sizes."""

    processes: int
    share: int  # samples of a batch that one process has
    micro_batch: int  # samples at once, as they are set or as they fit
    bytes: float  # with that micro-batch
    least: float  # with one sample at a time


def training_need(settings: Settings, card: float | None) -> Need:
    """Return the need of a training.  card: bytes of a GPU, None where there is none to fit into."""
    import torch

    from models.judges.clip import TEXT_SIZES
    from models.libraries import transformers
    from models.three_d.student import PAPER, Student
    from models.zoo.random_weights import TEXT_TOWER
    from tasks.training.footprint import SPARE, StepCounts, standing_bytes
    from tasks.training.processes import count_processes

    own = settings.distill
    text = transformers.CLIPTextConfig(**TEXT_TOWER).to_dict()
    learns = own.prompt_encoder == "learn"
    config = replace(
        PAPER, mae=PAPER.mae if learns else None, text={name: text[name] for name in TEXT_SIZES} if learns else None
    )
    processes = count_processes(settings)
    with torch.device("meta"):
        student = Student(config)
    weights = 4 * sum(p.numel() for p in student.parameters())
    standing = FROZEN_BYTES + weights + standing_bytes(student, own, processes)
    steps, share = StepCounts(config, own), max(1, own.batch_size // processes)
    fitting = share if card is None else steps.largest_part(share, SPARE * card - standing)
    micro_batch = fitting if own.micro_batch == "auto" else min(own.micro_batch, share)
    return Need(processes, share, micro_batch, standing + steps.peak(micro_batch), standing + steps.peak(1))
