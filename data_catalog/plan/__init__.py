"""Plan: the partitions that run, and the reasons."""
