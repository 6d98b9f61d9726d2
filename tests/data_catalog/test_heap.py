"""Memory that is used again while a partition is made, and given back after it."""

import resource
import sys
from pathlib import Path

import pytest
import torch

from data_catalog.config.settings import Settings
from data_catalog.store.execute import Job, execute
from data_catalog.store.heap import kept_memory
from data_catalog.store.record import Summary
from data_catalog.store.stage import Partition, Work

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tells glibc what to keep")


def pages_taken() -> int:
    """Count pages taken from the kernel in many rounds on tensors of 64 MB: a full heap may have no room for one."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(24):
        torch.ones(1 << 24).mul_(2.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def take_pages_twice(work: Work) -> Summary:
    pages_taken()
    return Summary(samples=pages_taken())


def test_memory_is_used_again_in_the_place_of_fresh_pages() -> None:
    with kept_memory():
        pages_taken()
        kept = pages_taken()
    assert kept < pages_taken() / 4


def test_memory_is_kept_until_the_outermost_piece_of_work_is_done() -> None:
    with kept_memory():
        with kept_memory():
            pages_taken()
        kept = pages_taken()
    assert kept < pages_taken() / 4


def test_a_partition_is_made_with_memory_kept_and_leaves_none_of_it(tmp_path: Path) -> None:
    job = Job(
        partition=Partition("portraits", None, 0),
        fingerprint="0" * 16,
        fingerprint_inputs={},
        version=1,
        run=take_pages_twice,
        resumes=False,
        settings=Settings(),
        inputs={},
        sources={},
        source_digest="",
        stale=None,
    )
    kept = execute(job, tmp_path).samples
    assert kept < pages_taken() / 4
