"""Replacement of `tasks.stages` for `benchmarks.instant`. Workers import the functions by their own module."""

from benchmarks.instant_stages import STAGES

__all__ = ["STAGES"]
