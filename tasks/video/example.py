"""Example clip of the embedded world: a procedural head that talks and turns before a hand-held camera."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from models.procedural import Identity, Person

FPS = 24
RATE_HZ = 48_000  # of the sound
SYLLABLES_HZ = 3.2  # openings of the mouth
TURN_S = 3.0  # from one side to the other and back
TURN_YAW, TURN_PITCH = 0.35, 0.10  # rad
OPENS, DROPS = 1.1, 0.03  # growth of the lips, as a factor; fall of the chin, in the head's own units
FOCAL = 0.72  # of EG3D's: the picture is larger than the head's crop
SHAKE, ROLL = 0.008, 0.03  # picture sides, rad
NOISE = 2.0  # of 255, standard deviation: a camera's sensor


@dataclass(frozen=True)
class Moment:
    """Frame with its truth: rgb (128, 128, 3) uint8, the person at this moment, and the exact camera (25,)."""

    rgb: np.ndarray
    person: Person
    label: Tensor


def talking_head(seed: int, frames: int) -> Iterator[Moment]:
    """Yield the person of `seed` for `frames` 24ths of a second; the same seed always gives the same clip."""
    from models import procedural
    from models.procedural.photo import RAW_SIZE_PX

    person = procedural.portrait(seed)
    for number in range(frames):
        seconds = number / FPS
        now = replace(person, identity=_speaking(person, seconds))
        label = _camera(seconds)
        picture = procedural.render(now, label, RAW_SIZE_PX).rgb.numpy() * 255.0
        noise = np.random.default_rng([seed, 7, number]).normal(0.0, NOISE, picture.shape)
        yield Moment(np.clip(picture + noise + 0.5, 0, 255).astype(np.uint8), now, label)


def write_example(path: Path, seed: int, frames: int) -> Path:
    """The clip as a file, with a tone that swells as the mouth opens. It appears when it is whole."""
    import av

    part = path.with_name(f".part-{path.name}")
    with av.open(str(part), "w") as container:
        pictures = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        sound = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for number, moment in enumerate(talking_head(seed, frames)):
            if number == 0:
                pictures.height, pictures.width = moment.rgb.shape[:2]
                pictures.pix_fmt = "yuv420p"
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(moment.rgb, format="rgb24")))
        container.mux(pictures.encode())
        tone = av.AudioFrame.from_ndarray(_tone(frames / FPS)[None], format="fltp", layout="mono")
        tone.sample_rate, tone.pts, tone.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
        container.mux(sound.encode(tone))
        container.mux(sound.encode())
    return part.replace(path)


def _speaking(person: Person, seconds: float) -> Identity:
    """Return the head with its mouth as speech opens it at this time."""
    opened = _opened(np.array(seconds)).item()
    identity = person.identity
    return replace(
        identity,
        lip_thickness=identity.lip_thickness * (1 + OPENS * opened),
        chin_drop=identity.chin_drop + DROPS * opened,
        smile=identity.smile + 0.008 * math.sin(2 * math.pi * seconds / 2.3),
    )


def _opened(seconds: np.ndarray) -> np.ndarray:
    """Return how far the mouth is open, in [0, 1]: syllables, some louder than others."""
    syllables = 0.5 - 0.5 * np.cos(2 * math.pi * SYLLABLES_HZ * seconds)
    return np.asarray(syllables * (0.6 + 0.4 * np.sin(2 * math.pi * 0.7 * seconds)))


def _camera(seconds: float) -> Tensor:
    """Label (25,): the head turns, the hand shakes a little."""
    import torch

    from models import camera

    turn = 2 * math.pi * seconds / TURN_S
    pose = camera.look_at(TURN_YAW * math.sin(turn), TURN_PITCH * math.sin(0.6 * turn + 0.5))[0]
    roll = ROLL * math.sin(2 * math.pi * 0.5 * seconds)
    pose[:3, :3] = pose[:3, :3] @ torch.tensor(
        [[math.cos(roll), -math.sin(roll), 0.0], [math.sin(roll), math.cos(roll), 0.0], [0.0, 0.0, 1.0]]
    )
    cx = 0.5 + SHAKE * math.sin(2 * math.pi * 0.9 * seconds)
    cy = 0.5 + SHAKE * math.cos(2 * math.pi * 1.1 * seconds)
    return camera.camera_label(pose[None], camera.intrinsics(camera.FOCAL * FOCAL, cx, cy))[0]


def _tone(seconds: float) -> np.ndarray:
    """(samples,) float32."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.2 * _opened(times) * np.sin(2 * math.pi * 220 * times)).astype(np.float32)
