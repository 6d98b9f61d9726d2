"""The memory of a training at the paper's size, counted without computing a step."""

from types import SimpleNamespace

import pytest
import torch

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import DistillSettings
from models.three_d import recompute
from models.three_d.student import PAPER, Student
from tasks.training import footprint
from tasks.training.footprint import LiveBytes, StepBytes, StepCounts, count_step, find_room
from tests.worlds import taught

DISTILL = load_settings("paper").distill


def test_a_step_of_the_papers_size_fits_into_a_card() -> None:
    four = count_step(PAPER, DISTILL, 4)
    assert four.held < four.peak < 20e9
    assert StepCounts(PAPER, DISTILL).peak(4) == pytest.approx(four.peak, rel=0.02)
    assert StepCounts(PAPER, DISTILL).peak(32) < 40e9


def test_pictures_that_are_not_computed_again_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recompute, "PIXELS_AT_ONCE", 2**40)
    assert StepCounts(PAPER, DISTILL).peak(32) > 60e9


def test_what_is_held_is_what_autograd_saves() -> None:
    """By hooks on saved tensors, storages counted once; what a part is computed from again is in no hook."""
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = count_step(PAPER, DISTILL, 1).held
    with torch.device("meta"):
        weights = sum(p.numel() * 4 for p in Student(PAPER).parameters())
    by_hooks = sum(size for size, _ in saved.values())
    assert held < by_hooks + 1e9
    assert by_hooks - weights < held


def test_bytes_are_counted_while_their_tensors_live() -> None:
    with LiveBytes() as live:
        first = torch.empty(1000, device="meta")
        view = first[:10] + 0
        assert live.now == 4000 + 40
        del first
        assert live.now == 40
        second = torch.empty(500, dtype=torch.float64, device="meta").view(10, 50)
        assert (live.now, live.peak) == (4040, 4040)
    assert (len(view), len(second)) == (10, 10)


@pytest.mark.parametrize(("free_gb", "micro_batch"), [(100.0, 32), (40.0, 16), (26.0, 11), (3.0, 1)])
def test_on_a_gpu_the_largest_equal_micro_batches_are_taken_that_fit(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, micro_batch: int
) -> None:
    by_size = lambda config, settings, samples: StepBytes(0, int(1e9 + samples * 1e9))  # noqa: E731
    monkeypatch.setattr(footprint, "count_step", by_size)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_gb * 1e9, 0))
    monkeypatch.setattr(footprint, "standing_bytes", lambda *given: 10e9)
    student = SimpleNamespace(config=PAPER)
    room = find_room(student, DistillSettings(batch_size=32), "cuda:0")  # type: ignore[arg-type]
    assert room.micro_batch == micro_batch
    left = 0.9 * free_gb * 1e9 - 10e9 - (1 + micro_batch) * 1e9
    assert room.features_mb == max(0, int(left) // 2**20 - 4096)
    fixed = DistillSettings(batch_size=32, micro_batch=3, memory_mb=7)
    assert find_room(student, fixed, "cuda:0") == footprint.Room(3, 7, 7, 7)  # type: ignore[arg-type]


def test_features_of_all_portraits_are_kept_where_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=64 * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    student = Student.from_teacher(taught.untrained_teacher())
    settings = DistillSettings(batch_size=12)
    assert find_room(student, settings, "cpu") == footprint.Room(12, 16384, 16384, 2048)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert find_room(student, settings, "cpu") == footprint.Room(3, 4096, 4096, 2048)
