"""Keys of the partitions that flows hand on: one of each in a plan, and pinned by digest."""

DATASET = "dataset/all"
STUDENT = "distill/all"
EVALUATION = "evaluate/all"
