"""Checkpoints: the two newest stay, and a damaged one gives way to the one before it."""

from pathlib import Path

import pytest
import torch

from tasks.training.checkpoints import Checkpoints


def network(value: float) -> torch.nn.Module:
    made = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(made.weight, value)
    return made


def test_the_newest_readable_checkpoint_is_taken_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = network(0.0)
    checkpoints = Checkpoints(tmp_path / "work", {"network": part})
    assert checkpoints.resume() == 0
    for step in (5, 10, 15):
        torch.nn.init.constant_(part.weight, float(step))
        checkpoints.save(step)
    kept = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert kept == ["checkpoint-00000010.pt", "checkpoint-00000015.pt"]
    (tmp_path / "work" / "checkpoint-00000015.pt").write_bytes(b"PK\x03\x04 not whole")
    again = network(0.0)
    assert Checkpoints(tmp_path / "work", {"network": again}).resume() == 10
    assert again.state_dict()["weight"].item() == 10.0
    assert "checkpoint-00000015.pt cannot be read and is left out" in caplog.text
