"""The student's encoder as an ONNX graph: onnxruntime takes one portrait through it on a CPU in about half the time.

PyTorch spends much of a small picture on dispatch and on weights in an order that its convolutions do not like.
The graph computes the same numbers (to about 1e-5 of the triplane's range); the renderer stays in PyTorch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from models.live3d import Render
    from models.student import PromptKind, Student

TOKEN_LENGTH = 16  # of the example that is traced; any number of tokens may follow


class _Editing(nn.Module):
    """Portraits and projected prompt tokens to triplanes."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder = student.encoder

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        low, high = self.encoder.branches(images)
        return self.encoder.Final_encoder(self.encoder.Ref_encoder.mix(high, tokens), low)


class CpuStudent(nn.Module):
    """A trained student for use on a CPU: `encode` and `render` of `models.student.Student`, without gradients.

    Building it takes some seconds (the graph is traced once), so it pays from some hundred portraits on.
    """

    def __init__(self, student: Student) -> None:
        """student: on the CPU, in float32; its weights are copied into the graph."""
        super().__init__()
        self.student = student.eval()
        self.config = student.config
        self._session = _session(_graph(student))

    def encode(self, images: Tensor, prompt_tokens: Tensor, prompt_kind: PromptKind) -> Tensor:
        """images: (B, 3, H, W) in [-1, 1].  prompt_tokens: (B, T, D).  Returns a triplane (B, 3*C, h, w)."""
        with torch.no_grad():
            tokens = self.student.encoder.Ref_encoder.project[prompt_kind](prompt_tokens)
            tokens = tokens.expand(len(images), *tokens.shape[1:])
            (triplane,) = self._session.run(None, {"images": images.numpy(), "tokens": tokens.numpy()})
        return torch.from_numpy(triplane)

    def render(self, triplane: Tensor, cameras: Tensor) -> Render:
        """triplane: (B, 3*C, h, w).  cameras: (B, 25)."""
        with torch.no_grad():
            return self.student.render(triplane, cameras)


def for_use(student: Student) -> Student | CpuStudent:
    """The fastest form of a trained student on the device that it is on."""
    on_cpu = student.renderer.const.device.type == "cpu"
    return CpuStudent(student) if on_cpu else student.eval()


def _graph(student: Student) -> bytes:
    """The encoder as a serialised ONNX model; batch and number of tokens are free."""
    size = student.config.live3d.encoder.image_size
    images = torch.zeros(2, 3, size, size)
    tokens = torch.zeros(2, TOKEN_LENGTH, student.config.query_size)
    free = torch.export.Dim.DYNAMIC
    for chatty in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    chatter = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            _Editing(student).eval(), (images, tokens), input_names=["images", "tokens"], output_names=["triplane"],
            dynamo=True, dynamic_shapes=({0: free}, {0: free, 1: free}), verbose=False,
        )  # fmt: skip
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would wait in a loop, and take the cores from PyTorch's threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
