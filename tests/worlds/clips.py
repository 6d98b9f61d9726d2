"""Small clips that tests make: a face that moves, at uneven times, with a tone."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from models.procedural.photo import raw_photo

TIME_BASE = Fraction(1, 1000)
UNEVEN = (0, 40, 80, 173, 200, 333, 350, 400)  # milliseconds: a rate that varies
RATE_HZ = 48_000


@cache
def _face() -> np.ndarray:
    return raw_photo(0).rgb


def moving_face(count: int) -> list[np.ndarray]:
    """(128, 128, 3) uint8 each: a photograph that slides to the right."""
    return [np.roll(_face(), number, axis=1) for number in range(count)]


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    times: Sequence[int] = UNEVEN,
    sound: str | None = "aac",
    time_base: Fraction = TIME_BASE,
) -> Path:
    """pictures: (H, W, 3) uint8; none for a file with nothing but sound.  times: of each, in units of `time_base`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "12"}) if pictures else None
        voice = container.add_stream(sound, rate=RATE_HZ, layout="mono") if sound else None
        if video is not None:
            video.height, video.width = pictures[0].shape[:2]
            video.pix_fmt, video.time_base, video.codec_context.time_base = "yuv420p", time_base, time_base
            for picture, time in zip(pictures, times, strict=False):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = time, time_base
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if voice is not None:
            _add_tone(container, voice, float(times[-1] * time_base) + 0.1)
    return path


def read_times(path: Path) -> list[Fraction]:
    """Seconds at which each picture is shown."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [Fraction(frame.pts) * stream.time_base for frame in container.decode(stream)]


def read_duration(path: Path) -> Fraction:
    """Seconds from the first picture's beginning to the last one's end."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.duration * stream.time_base


def read_sound(path: Path) -> list[tuple[Fraction, bytes]]:
    """The packets of the sound as they are stored, with their times in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [(p.dts * p.time_base, bytes(p)) for p in container.demux(stream) if p.dts is not None]


def _add_tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    wave = 0.2 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE_HZ)) / RATE_HZ)
    kind = stream.codec_context.format.name
    samples = wave.astype(np.float32) if kind.startswith("flt") else ((wave + 1) * 127).astype(np.uint8)
    frame = av.AudioFrame.from_ndarray(samples[None], format=kind, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
