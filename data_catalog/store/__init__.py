"""Stages as declared, their partitions on disk, and the index over them."""
