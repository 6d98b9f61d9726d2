"""The student's convolutions as ONNX graphs: onnxruntime takes one portrait through them in about half the time.

PyTorch spends much of a small picture on dispatch and on weights in an order that its convolutions do not like.
The graphs (encoder, super-resolution) compute the same numbers, to about 1e-5 of their range; the rays stay in
PyTorch, whose look-up in the planes is the faster one.
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

SMALL = 128  # pixels across the portrait; tracing at 512 takes many minutes and gigabytes
TOKEN_LENGTH = 16  # of the example that is traced; any number of tokens may follow


class _Editing(nn.Module):
    """Portraits and projected prompt tokens to triplanes."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder = student.encoder

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        low, high = self.encoder.branches(images)
        return self.encoder.Final_encoder(self.encoder.Ref_encoder.mix(high, tokens), low)


class _Upsampling(nn.Module):
    """Rendered features to the image; the style is a constant of the graph."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.superresolution = student.renderer.superresolution
        self.style = student.renderer.const

    def forward(self, features: Tensor) -> Tensor:
        return self.superresolution(features[:, :3], features, self.style[0])


class CpuStudent(nn.Module):
    """A trained student for use on a CPU: `encode` and `render` of `models.student.Student`, without gradients.

    Building it takes some seconds (the graph is traced once), so it pays from some hundred portraits on.
    """

    def __init__(self, student: Student) -> None:
        """student: on the CPU, in float32; its weights are copied into the graph."""
        super().__init__()
        self.student = student.eval()
        self.config = student.config
        self._encoder, self._upsampler = (_session(graph) for graph in _graphs(student))

    def encode(self, images: Tensor, prompt_tokens: Tensor, prompt_kind: PromptKind) -> Tensor:
        """images: (B, 3, H, W) in [-1, 1].  prompt_tokens: (B, T, D).  Returns a triplane (B, 3*C, h, w)."""
        with torch.no_grad():
            tokens = self.student.encoder.Ref_encoder.project[prompt_kind](prompt_tokens)
            tokens = tokens.expand(len(images), *tokens.shape[1:])
            (triplane,) = self._encoder.run(None, {"images": images.numpy(), "tokens": tokens.numpy()})
        return torch.from_numpy(triplane)

    def render(self, triplane: Tensor, cameras: Tensor) -> Render:
        """triplane: (B, 3*C, h, w).  cameras: (B, 25)."""
        with torch.no_grad():
            seen = self.student.renderer.see(triplane, cameras)
            (image,) = self._upsampler.run(None, {"features": seen.features.numpy()})
        return seen._replace(image=torch.from_numpy(image))


def for_use(student: Student) -> Student | CpuStudent:
    """The fastest form of a trained student on the device that it is on; large pictures gain nothing from graphs."""
    on_cpu = student.renderer.const.device.type == "cpu"
    small = student.config.live3d.encoder.image_size <= SMALL
    return CpuStudent(student) if on_cpu and small else student.eval()


def _graphs(student: Student) -> tuple[bytes, bytes]:
    """Encoder and super-resolution as serialised ONNX models; batch and number of tokens are free."""
    size, rays = student.config.live3d.encoder.image_size, student.config.live3d.renderer
    images = torch.zeros(2, 3, size, size)
    tokens = torch.zeros(2, TOKEN_LENGTH, student.config.query_size)
    features = torch.zeros(2, rays.features, rays.resolution, rays.resolution)
    free = torch.export.Dim.DYNAMIC
    encoder = _graph(_Editing(student), {"images": (images, {0: free}), "tokens": (tokens, {0: free, 1: free})})
    return encoder, _graph(_Upsampling(student), {"features": (features, {0: free})})


def _graph(network: nn.Module, inputs: dict[str, tuple[Tensor, dict[int, Any]]]) -> bytes:
    """inputs: by name, an example and its free dimensions."""
    for chatty in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    examples, shapes = zip(*inputs.values(), strict=True)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            network.eval(), examples, input_names=list(inputs), dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _session(graph: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would wait in a loop, and take the cores from PyTorch's threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
