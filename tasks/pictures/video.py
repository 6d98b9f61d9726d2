"""Pictures as a video file, through PyAV."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from data_catalog.config.errors import UserError

if TYPE_CHECKING:
    from av import Packet, VideoCodecContext, VideoFrame
    from av.container import InputContainer, OutputContainer

FPS = 24
MIN_SIDE = 256  # px; smaller pictures are enlarged, since players and 4:2:0 colour treat tiny ones badly
# Options of x264. Without B-frames, pictures are stored in the order of their times, and the last one ends on time.
QUALITY = {"crf": "16", "preset": "medium", "bf": "0"}
SUFFIXES = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}  # containers of H.264

log = logging.getLogger(__name__)


class Frame(NamedTuple):
    """A picture (H, W, 3) uint8, shown from `pts` on for `duration`, both in units of the clip's time base."""

    rgb: np.ndarray
    pts: int
    duration: int


def check_video_name(path: Path) -> None:
    """Raise UserError if the suffix is of no container for H.264."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot write a video named '{path}'", expected=f"a name ending in {', '.join(SUFFIXES)}")


def check_sound(path: Path, source: Path) -> None:
    """Raise UserError if the sound of the file `source` cannot be copied into a video named `path`."""
    import av

    with av.open(str(source)) as given:
        names = ", ".join(stream.codec_context.name for stream in given.streams.audio)
        try:
            with av.open(io.BytesIO(), "w", format=SUFFIXES[path.suffix.lower()]) as container:
                for stream in given.streams.audio:
                    container.add_stream_from_template(stream)
                if names:
                    container.start_encoding()
        except (av.error.FFmpegError, ValueError):
            raise UserError(
                f"the sound of {source} cannot be stored in a {path.suffix} file",
                sound=names,
                hint=f"--out {path.with_suffix('.mkv')}",
            ) from None


def write_video(path: Path, pictures: Iterable[np.ndarray], fps: int = FPS) -> Path:
    """pictures: (H, W, 3) uint8, equal in size, taken one at a time.  The file appears when it is whole."""
    frames = (Frame(rgb, number, 1) for number, rgb in enumerate(pictures))
    return write_clip(path, frames, Fraction(1, fps), Fraction(fps))


def write_clip(
    path: Path, frames: Iterable[Frame], time_base: Fraction, fps: Fraction, sound: Path | None = None
) -> Path:
    """Frames, equal in size, each shown at its own time; the sound of the file `sound` is copied as it is.

    fps: of the whole clip, where frames come at no even rate; x264 plans its bits by it.
    """
    import av

    check_video_name(path)
    part = path.with_name(f".part-{path.name}")
    try:
        with av.open(str(part), "w") as container:
            enlarged = ((_enlarged(frame.rgb), frame) for frame in frames)
            first = next(enlarged, None)
            assert first is not None, "a video needs a frame"
            stream = container.add_stream("libx264", rate=fps, options=QUALITY)
            stream.width, stream.height, stream.pix_fmt = first[0].width, first[0].height, "yuv420p"
            _tag(stream.codec_context)
            stream.time_base = stream.codec_context.time_base = time_base
            copy_until = _sound_copier(container, sound)
            durations: dict[int | None, int] = {}
            for image, frame in itertools.chain([first], enlarged):
                copy_until(float(frame.pts * time_base))
                shown = _to_yuv(av.VideoFrame.from_image(image))
                shown.pts, shown.time_base = frame.pts, time_base
                durations[frame.pts] = frame.duration
                _mux(container, stream.encode(shown), durations)
            _mux(container, stream.encode(), durations)
            copy_until(float("inf"))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _to_yuv(picture: VideoFrame) -> VideoFrame:
    """Convert from RGB by the matrix and to the range that `_tag` notes."""
    from av.video.reformatter import ColorRange, Colorspace

    return picture.reformat(
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
    )


def _tag(context: VideoCodecContext) -> None:
    """Note square pixels and BT.709, so that no player has to guess."""
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    context.sample_aspect_ratio = Fraction(1)
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def _mux(container: OutputContainer, packets: list[Packet], durations: dict[int | None, int]) -> None:
    """Store pictures with their durations, which x264 drops and which end the last picture."""
    for packet in packets:
        packet.duration = durations.pop(packet.pts)
        container.mux(packet)


def _sound_copier(container: OutputContainer, source: Path | None) -> Callable[[float], None]:
    """Adds the sound's streams. Called with a time in seconds, it copies the packets up to then."""
    import av

    if source is None:
        return lambda seconds: None
    given = av.open(str(source))
    copies = {stream.index: container.add_stream_from_template(stream) for stream in given.streams.audio}
    packets = _sound_packets(given)
    waiting = next(packets, None)

    def copy_until(seconds: float) -> None:
        nonlocal waiting
        while waiting is not None and float((waiting.dts or 0) * waiting.time_base) <= seconds:
            waiting.stream = copies[waiting.stream.index]
            container.mux(waiting)
            waiting = next(packets, None)

    return copy_until


def _sound_packets(given: InputContainer) -> Iterator[Packet]:
    """Packets of the sound, up to the first damage."""
    import av

    try:
        with given:
            if given.streams.audio:
                yield from (packet for packet in given.demux(*given.streams.audio) if packet.dts is not None)
    except av.error.FFmpegError as error:
        log.debug("the sound breaks off: %s", error)


def _enlarged(picture: np.ndarray) -> Image.Image:
    """A whole number of times as large, and even: 4:2:0 stores colour for pairs of pixels."""
    height, width = picture.shape[:2]
    scale = max(1, -(-MIN_SIDE // min(height, width)))
    size = (width * scale + width * scale % 2, height * scale + height * scale % 2)
    image = Image.fromarray(picture)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
