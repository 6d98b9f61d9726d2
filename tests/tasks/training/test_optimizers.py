"""The optimizers: what Muon computes in, and that it does not matter much for where it goes."""

import pytest
import torch
from torch import Tensor, nn

from data_catalog.config.settings import DistillSettings
from models.three_d.live3d import EMBEDDED, Live3D
from models.three_d.student import Student
from tasks.training import optimizers
from tasks.training.rates import make_optimizer


def trained(monkeypatch: pytest.MonkeyPatch, halves: bool) -> tuple[list[Tensor], set[torch.dtype]]:
    """Weights after three steps of Muon, and what its matrices were multiplied in."""
    monkeypatch.setattr(optimizers, "has_bfloat16", lambda device: halves)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 4))
    optimizer = optimizers.build("muon", optimizers.group(network.parameters(), "muon", 1e-2, 0.0))
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(5, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    turned = optimizer._orthogonalize(optimizer.param_groups[0], [torch.randn(4, 6)])
    return [each.detach() for each in network.parameters()], {each.dtype for each in turned}


def test_muon_multiplies_in_what_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 that is only imitated takes most of a step's time."""
    in_halves, halves = trained(monkeypatch, True)
    in_full, full = trained(monkeypatch, False)
    assert halves == {torch.bfloat16}
    assert full == {torch.float32}
    for one, other in zip(in_halves, in_full, strict=True):
        assert not torch.equal(one, torch.zeros_like(one))
        torch.testing.assert_close(one, other, rtol=0.0, atol=2e-3)


def test_the_settings_give_adamw_its_betas_and_decay() -> None:
    student = Student.from_teacher(Live3D(EMBEDDED))
    settings = DistillSettings(betas=(0.8, 0.95), weight_decay=0.03, lr=1e-3, lr_transformer=2e-3)
    groups = make_optimizer(student, settings).param_groups
    assert [(group["betas"], group["weight_decay"], group["lr"]) for group in groups] == [
        ((0.8, 0.95), 0.03, 1e-3),
        ((0.8, 0.95), 0.03, 2e-3),
    ]
