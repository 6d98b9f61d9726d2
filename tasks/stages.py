"""All stages, in the order of the workflow. Importing this loads declarations, no networks."""

from data_catalog.store.stage import Stage
from tasks import align, dataset, distill, edit, evaluate, portraits, prompts, score, select, teach

STAGES: tuple[Stage, ...] = (
    portraits.STAGE,
    align.STAGE,
    prompts.STAGE,
    edit.STAGE,
    score.STAGE,
    select.STAGE,
    teach.STAGE,
    dataset.STAGE,
    distill.STAGE,
    evaluate.STAGE,
)
