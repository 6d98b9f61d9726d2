"""Optimizers by name, for the student and for the embedded networks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.precision import has_bfloat16

OptimizerName = Literal["adamw", "muon"]

BETAS = (0.9, 0.99)  # for AdamW, where no others are given
MOMENTUM = 0.9  # for Muon


def group(
    parameters: Iterable[nn.Parameter],
    name: OptimizerName,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = BETAS,
) -> list[dict[str, Any]]:
    """Parameter groups that learn at one rate. Gains and biases have no use for Muon."""
    parameters = list(parameters)
    common = {"lr": lr, "weight_decay": weight_decay}
    by_adamw: dict[str, Any] = {"params": parameters, "betas": betas, **common}
    if name == "adamw":
        return [by_adamw]
    by_adamw |= {"params": [p for p in parameters if p.ndim <= 1], "use_muon": False}
    by_muon = {"params": [p for p in parameters if p.ndim > 1], "use_muon": True, "momentum": MOMENTUM, **common}
    return [each for each in (by_muon, by_adamw) if each["params"]]


def build(name: OptimizerName, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer of groups made by `group` with the same name."""
    if name == "adamw":
        return torch.optim.AdamW(groups)
    from pytorch_optimizer import Muon

    class Float32Muon(Muon):
        """Orthogonalises in float32; the library's bfloat16 is only imitated by most CPUs: docs/lab/training.md."""

        @staticmethod
        def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
            return [orthogonalise(each.flatten(1), group["ns_steps"], group["ns_coeffs"]) for each in updates]

    device = groups[0]["params"][0].device
    kind = Muon if has_bfloat16(str(device)) else Float32Muon
    return kind(groups, use_adjusted_lr=True)  # steps as long as AdamW's at the same learning rate


def orthogonalise(matrix: Tensor, steps: int, coefficients: Any) -> Tensor:
    """Newton-Schulz (Jordan et al. 2024) of a matrix (rows, columns), in float32."""
    from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5

    return zero_power_via_newton_schulz_5(matrix, num_steps=steps, weights=coefficients, dtype=torch.float32)
