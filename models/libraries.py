"""diffusers, transformers and lpips, imported so that they work beside a CPU-only torch too.

All three import torchvision. Its registry build has operators compiled against CUDA libraries; beside a CPU-only torch
they do not load, and torchvision then fails at import because it registers a fake kernel for an operator that nobody
defined. Defining the schemas first is enough: nothing here calls the operators. Import these libraries from here only.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch


def _define_missing_operators() -> None:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
            return  # compiled operators are there; defining them again would clash
        except OSError:
            continue
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_define_missing_operators()

import diffusers  # noqa: E402  (after the operators are defined)
import lpips  # noqa: E402
import transformers  # noqa: E402

transformers.utils.logging.disable_progress_bar()  # small networks load often: a bar each is noise
diffusers.utils.logging.disable_progress_bar()

__all__ = ["diffusers", "lpips", "transformers"]
