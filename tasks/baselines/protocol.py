"""Inputs and outputs of every method, with the student and its teachers among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from data_catalog.config.errors import UserError
from data_catalog.config.settings import Settings
from models.pixels import signed
from tasks.evaluation.stopwatch import device_clock

if TYPE_CHECKING:
    from models.editing.editor import Editor
    from models.faces.recognition import Recogniser
    from models.judges.captioner import Captioner
    from models.judges.clip import Clip
    from models.judges.perceptual import Perceptual
    from models.three_d.eg3d import Inverter
    from models.three_d.live3d import Live3D, Render
    from models.three_d.mae import Mae

Found = TypeVar("Found")


class Diverged(Exception):
    """An optimisation whose loss is no number; the message is the reason of a rejected sample."""


class Seen(Protocol):
    """Model that renders triplanes: teacher, student, or a generator with a latent."""

    def render(self, triplane: Tensor, cameras: Tensor) -> Render:
        """triplane: (B, 3*C, h, w).  cameras: (B, 25)."""
        ...


@dataclass(frozen=True)
class Edited:
    """Head as a method leaves it: its triplane (1, 3*C, h, w), and the model that renders it.

    unedited: the method's own reconstruction of the portrait, where it has one.
    """

    model: Seen
    triplane: Tensor
    unedited: Edited | None = None


@dataclass(frozen=True)
class Prompt:
    """Wish, by words or by a picture (H, W, 3) uint8; exactly one of them."""

    text: str | None = None
    picture: np.ndarray | None = None

    def __post_init__(self) -> None:
        picture = self.picture
        is_picture = isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)
        is_text = isinstance(self.text, str) and bool(self.text.strip())
        if is_text == is_picture or (self.text is not None) == (picture is not None):
            raise UserError(
                "the prompt is neither text nor picture",
                found=f"text {self.text!r}, picture {type(picture).__name__}",
                expected="words, or a picture (H, W, 3) uint8; one of the two",
            )

    def features(self, clip: Clip) -> Tensor:
        """CLIP's unit vector (1, D) of the wish."""
        if self.picture is not None:
            return clip.embed_images(self.picture[None])
        assert self.text is not None
        return clip.embed_texts([self.text])


@dataclass
class Portrait:
    """Portrait (H, W, 3) uint8 with its camera (25,). Work that does not depend on the prompt is done once.

    spared: seconds of such work that later prompts were spared; they count for each edit all the same.
    """

    picture: np.ndarray
    camera: np.ndarray
    device: str = "cpu"
    seed: int = 0
    spared: float = 0.0
    _known: dict[str, tuple[Any, float]] = field(default_factory=dict)

    @property
    def image(self) -> Tensor:
        """(1, 3, H, W) in [-1, 1]."""
        return signed(self.picture[None], self.device)

    @property
    def label(self) -> Tensor:
        """(1, 25)."""
        return torch.from_numpy(self.camera)[None].to(self.device)

    def once(self, name: str, make: Callable[[], Found]) -> Found:
        """Make, or return what an earlier prompt made."""
        if name in self._known:
            found, seconds = self._known[name]
            self.spared += seconds
            return found
        clock = device_clock(self.device)
        started = clock()
        made = make()
        self._known[name] = made, clock() - started
        return made


@dataclass(frozen=True)
class Networks:
    """Networks of the methods; those that a method does not name may be None."""

    teacher: Live3D
    clip: Clip
    identity: Recogniser
    lpips: Perceptual
    editor: Editor | None = None
    mae: Mae | None = None
    student: Any = None
    inverter: Inverter | None = None
    captioner: Captioner | None = None


class Edit(Protocol):
    """The function of a method."""

    def __call__(self, networks: Networks, portrait: Portrait, prompt: Prompt, settings: Settings) -> Edited: ...


def step_draw(seed: int, step: int) -> torch.Generator:
    """Random numbers of a step of an optimisation."""
    return torch.Generator().manual_seed(seed * 100_003 + step)


def optimise(
    parameters: list[Tensor],
    loss: Callable[[int], Tensor | None],
    steps: int,
    rate: float,
    what: str,
    ramp: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
) -> list[float]:
    """Minimise a loss by Adam; returns its values. Gradients reach these parameters alone.

    loss: of the number of the step; None ends the optimisation.  ramp: StyleGAN2's course of the rate, up in the first
    twentieth and down in the last quarter.  Raises Diverged where the loss is no number.
    """
    optimizer = torch.optim.Adam(parameters, lr=rate, betas=betas)
    values: list[float] = []
    for step in range(steps):
        if ramp:
            place = step / steps
            falling = 0.5 - 0.5 * np.cos(np.pi * min(1.0, (1.0 - place) / 0.25))
            optimizer.param_groups[0]["lr"] = rate * falling * min(1.0, (step + 1) / max(1.0, 0.05 * steps))
        value = loss(step)
        if value is None:
            break
        values.append(float(value.detach()))
        if not np.isfinite(values[-1]):
            raise Diverged(f"{what}: the loss is not a number")
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None
        if not bool(torch.isfinite(parameter).all()):
            raise Diverged(f"{what}: a value is not a number")
    return values
