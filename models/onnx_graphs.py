"""Networks as ONNX graphs for a CPU, where onnxruntime is the faster one for small pictures."""

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
    """A copy of a network as it is now, for one thread.

    inputs: by name, an example and names of its free dimensions; the others are as in the example. A network whose
    batch is to be free must ask for `shape[0]`: a `len` becomes a constant.
    output: the name of the one tensor that comes out.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would wait in a loop, and take the cores from others
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_trace(network, inputs, output), options, providers=["CPUExecutionProvider"])


def _trace(network: nn.Module, inputs: Mapping[str, tuple[Tensor, dict[int, str]]], output: str) -> bytes:
    """Serialised. By the old exporter: it takes less than a second where that of torch.export takes about ten."""
    stream, examples = io.BytesIO(), tuple(example for example, _ in inputs.values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer about itself
        torch.onnx.export(
            network.eval(), examples, stream,  # type: ignore[arg-type]  # its types know paths alone
            input_names=list(inputs), output_names=[output], dynamo=False,
            dynamic_axes={name: free for name, (_, free) in inputs.items()}, opset_version=18,
        )  # fmt: skip
    return stream.getvalue()
