"""diffusers, transformers and lpips, imported so that they also work beside a CPU-only torch.

All three import torchvision. Its registry build has operators compiled against CUDA libraries. Beside a CPU-only torch
they do not load, and torchvision then fails at import because it registers a fake kernel for an undefined operator.
Defining the schemas first is enough: these operators are never called. Import these libraries from here only.

Each is imported on first use: a student needs transformers alone and works where the others are missing.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch


def _define_missing_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
            return  # compiled operators are loaded; defining them again would clash
        except OSError:
            continue
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_define_missing_operators()


def __getattr__(name: str) -> Any:
    """Import a library with its progress bars switched off: small networks load often."""
    if name == "diffusers":
        import diffusers

        diffusers.utils.logging.disable_progress_bar()
        return diffusers
    if name == "transformers":
        import transformers

        transformers.utils.logging.disable_progress_bar()
        return transformers
    if name == "lpips":
        import lpips

        return lpips
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
