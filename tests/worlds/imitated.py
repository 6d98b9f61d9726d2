"""torch's meta device in the part of a GPU, for machines without one: what is left on the CPU is an error.

Tensors there have shapes and no values. A copy to the CPU gives zeros. As on a GPU, tensors of both devices do not meet
in one operation; numbers (tensors without dimensions) and indices may come from the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

DEVICE = "meta"
TO_HOST = {"cpu", "numpy", "item", "tolist", "__float__", "__int__", "__bool__", "__index__", "__array__"}
MAY_MIX = {"to", "copy_", "__getitem__", "index", "__get__", "__set__", "_has_compatible_shallow_copy_type"}


class WrongPlaceError(AssertionError):
    """Tensors of two devices in one operation."""


class Generator(torch.Generator):
    """A generator that says it is on the imitated device."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        return super().__new__(cls) if torch.device(device).type == DEVICE else REAL_GENERATOR(device)

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(DEVICE)


REAL_GENERATOR = torch.Generator


class Imitation(TorchFunctionMode):
    """Runs operations, and raises where devices mix."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and first.device.type == DEVICE and (name in TO_HOST or _asks_for_cpu(name, args, kwargs)):
            on_host = torch.zeros(first.shape, dtype=first.dtype)
            return on_host if name in ("cpu", "to") else function(on_host, *args[1:], **kwargs)
        if name == "nonzero" and first is not None and first.device.type == DEVICE:  # all of them
            return torch.zeros(first.numel(), first.ndim, dtype=torch.int64, device=DEVICE)
        if name == "copy_" and first is not None and first.device.type != DEVICE and args[1].device.type == DEVICE:
            return first.zero_()
        if isinstance(kwargs.get("generator"), Generator):
            kwargs.pop("generator")
        if name not in MAY_MIX:
            places = {
                each.device.type for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and each.ndim
            }
            if len(places) > 1:
                raise WrongPlaceError(f"{name} met tensors on {' and '.join(sorted(places))}")
        return function(*args, **kwargs)


def _asks_for_cpu(name: str, args: Any, kwargs: Any) -> bool:
    if name != "to":
        return False
    asked = [each for each in (*args[1:], kwargs.get("device")) if isinstance(each, (str, torch.device, Tensor))]
    return any((each.device if isinstance(each, Tensor) else torch.device(each)).type == "cpu" for each in asked)


@contextmanager
def imitated_gpu() -> Iterator[None]:
    """Let the meta device be the GPU."""
    with mock.patch.object(torch, "Generator", Generator), Imitation():
        yield
