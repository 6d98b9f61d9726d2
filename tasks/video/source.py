"""Frames of a video file, or of a folder of pictures in the order of their names, with their times."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from data_catalog.config.errors import UserError
from data_catalog.samples.formats import is_picture_name, name_foreign
from data_catalog.samples.images import Rejected, read_image
from tasks.pictures.video import FPS, Frame
from tasks.video.pixels import SDR_HINT, UNKNOWN, read_tags, shown_size, to_picture

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.error import FFmpegError
    from av.video.stream import VideoStream

ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own leave the alpha out
DOLBY_VISION = ("dvh1", "dvhe", "dvav", "dva1", "dav1")  # without a curve that others know: profile 5
AGAIN = "copy or download it again; untrunc or ffmpeg may save what is there"
MISSING_S = 0.5  # seconds; a file that ends this much before its announced end is truncated

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """Clip to be edited. Times are `pts * time_base` seconds.

    pictures: of a folder, in their order; empty for a file.
    """

    path: Path
    pictures: tuple[Path, ...]
    time_base: Fraction
    fps: Fraction  # of the whole clip, for the one that encodes; single frames have times of their own
    max_pixels: int

    @property
    def sound(self) -> Path | None:
        """Return the file whose sound belongs to the clip."""
        return None if self.pictures else self.path

    def frames(self) -> Iterator[Frame]:
        """Every readable frame, upright, sRGB. Unreadable ones are reported at the end; the one before lasts longer."""
        if not self.pictures:
            yield from _Decoder(self).frames()
            return
        held, refused = None, []
        for number, path in enumerate(self.pictures):
            image = read_image(path, self.max_pixels)
            if isinstance(image, Rejected):
                refused.append((path, image))
                continue
            if held is not None:
                yield held._replace(duration=number - held.pts)
            held = Frame(image.rgb, 0 if held is None else number, 1)
        if held is None:
            path, image = refused[0]
            raise image.as_error(f"no frame in {self.path} can be read; {path.name}")
        if refused:
            log.warning(
                "%d of %d frames of %s are left out, and the one before each is shown on: the first is %s: %s",
                len(refused), len(self.pictures), self.path, refused[0][0].name, refused[0][1],
            )  # fmt: skip
        yield held._replace(duration=len(self.pictures) - held.pts)

    def digest(self) -> str:
        """sha256 of the bytes, and of the pictures' order."""
        whole = hashlib.sha256()
        for path in self.pictures or (self.path,):
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()


def open_clip(path: Path, max_pixels: int) -> Clip:
    """Open a file or a folder.  Raises UserError if there is no moving picture in it."""
    if path.is_dir():
        found = [file for file in path.iterdir() if is_picture_name(file.name) and file.is_file()]
        if not found:
            raise UserError(f"no picture in the folder {path}", expected="a video file, or frames as pictures")
        return Clip(path, tuple(sorted(found, key=_natural)), Fraction(1, FPS), Fraction(FPS), max_pixels)
    if not path.is_file():
        raise UserError(f"there is no video {path}", expected="a video file, or a folder of pictures")
    if path.stat().st_size == 0:
        raise UserError(f"the video {path} is empty: 0 bytes", hint=AGAIN)
    with _open(path) as container:
        stream = _find_pictures(container, path)
        width, height = shown_size(stream.width, stream.height, read_tags(stream).aspect)
        if width * height > max_pixels:
            size = f"{width}x{height}"
            raise UserError(f"the pictures of {path} are too large", found=size, expected=f"{max_pixels} pixels")
        assert stream.time_base is not None
        return Clip(path, (), stream.time_base, stream.average_rate or Fraction(FPS), max_pixels)


class _Decoder:
    """Single pass over a file; damage is skipped and counted."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.step = max(1, round(1 / (clip.fps * clip.time_base)))
        self.unreadable = 0  # packets
        self.broke_off = False
        self._stored: dict[int | None, int | None] = {}  # durations as stored, by time

    def frames(self) -> Iterator[Frame]:
        """Frames with durations: a picture lasts until the next one, the last one until the stream's end."""
        seen, held = 0, None
        with _open(self.clip.path) as container:
            stream = _find_pictures(container, self.clip.path)
            tags = read_tags(stream)
            for picture in self._pictures(container, stream):
                pts = picture.pts if picture.pts is not None else (0 if held is None else held.pts + self.step)
                if held is not None:
                    pts = max(pts, held.pts + 1)  # a file may repeat a time
                    yield held._replace(duration=pts - held.pts)
                rgb = to_picture(picture, tags)
                seen, held = seen + 1, Frame(rgb, pts, self._stored.get(picture.pts) or self.step)
            announced = container.duration / 1_000_000 if container.duration else 0.0
            end = None if stream.duration is None else (stream.start_time or 0) + stream.duration
        if held is None:
            raise UserError(
                f"no picture of {self.clip.path} can be read", unreadable=f"{self.unreadable} packets", hint=AGAIN
            )
        shown = float((held.pts + held.duration) * self.clip.time_base)
        if self.unreadable or self.broke_off or shown < announced - MISSING_S:
            self._warn(seen, shown, announced)
        elif end is not None and end > held.pts:
            held = held._replace(duration=end - held.pts)
        yield held

    def _pictures(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        import av

        packets, decode = container.demux(stream), _find_decoder(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, EOFError):
                self.broke_off = True
                return
            if packet is None:
                return
            self._stored[packet.pts] = packet.duration
            try:
                yield from decode(packet)
            except av.error.FFmpegError:
                self.unreadable += 1

    def _warn(self, seen: int, shown: float, announced: float) -> None:
        log.warning(
            "%s is damaged: %d frames up to %.2f s of %.2f s could be read, %d packets could not; %s",
            self.clip.path, seen, shown, max(announced, shown), self.unreadable, AGAIN,
        )  # fmt: skip


def _open(path: Path) -> InputContainer:
    import av

    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        raise _explain(path, error) from None


def _explain(path: Path, error: FFmpegError) -> UserError:
    """Return the message for a file that FFmpeg does not open."""
    message, expected = f"{path} cannot be read as a video", "a video, or a folder of pictures"
    try:
        with path.open("rb") as file:
            start = file.read(65536)
    except OSError as cause:
        return UserError(message, cause=cause.strerror or cause)
    if start[4:8] in (b"ftyp", b"mdat", b"moov"):
        return UserError(message, found="no index: the recording, or the copy of it, broke off", hint=AGAIN)
    foreign = name_foreign(start)
    found = str(error.strerror) if foreign is None else foreign.reason.removesuffix(", not a picture")
    return UserError(message, found=found, expected=expected)


def _find_pictures(container: InputContainer, path: Path) -> VideoStream:
    """Return the first stream of moving pictures; a cover picture of a sound file is none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            if stream.codec_context.codec_tag in DOLBY_VISION and stream.codec_context.color_trc == UNKNOWN:
                raise UserError(f"Dolby Vision without HDR10 or HLG is not read: {path}", hint=SDR_HINT)
            return stream
    kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    raise UserError(f"{path} has no moving picture", found=kinds, expected="a video")


def _find_decoder(stream: VideoStream) -> Callable[[Packet], list[VideoFrame]]:
    """Return the decoding of a packet, with the alpha where the file has some."""
    import av

    name = ALPHA_DECODERS.get(stream.codec_context.name)
    noted = {key.lower(): value for key, value in stream.metadata.items()}.get("alpha_mode")
    if name is None or noted != "1":
        return lambda packet: packet.decode()
    decoder = av.CodecContext.create(name, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    return lambda packet: decoder.decode(packet if packet.size else None)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """frame_9 before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]
