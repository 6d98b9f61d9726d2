"""Networks as ONNX graphs for a CPU, where onnxruntime is faster for small pictures."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def session(network: nn.Module, inputs: Mapping[str, tuple[Tensor, dict[int, str]]], output: str) -> InferenceSession:
    """Build an onnxruntime session from a copy of a network in its present state, for one thread.

    inputs: by name, an example and names of its free dimensions; the others are as in the example. A network whose
    batch is to be free must ask for `shape[0]`: a `len` becomes a constant.
    output: the name of the one tensor that comes out.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more threads would spin while they wait, and take the cores from other work
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_trace(network, inputs, output), options, providers=["CPUExecutionProvider"])


def _trace(network: nn.Module, inputs: Mapping[str, tuple[Tensor, dict[int, str]]], output: str) -> bytes:
    """Serialise a network with TorchScript's exporter: below a second, where torch.export takes about ten."""
    stream, examples = io.BytesIO(), tuple(example for example, _ in inputs.values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's own deprecation warnings
        torch.onnx.export(
            network.eval(), examples, stream,  # type: ignore[arg-type]  # its types allow paths only
            input_names=list(inputs), output_names=[output], dynamo=False,
            dynamic_axes={name: free for name, (_, free) in inputs.items()}, opset_version=18,
        )  # fmt: skip
    return stream.getvalue()
