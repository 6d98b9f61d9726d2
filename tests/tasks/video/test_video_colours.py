"""Frames are seen as a player shows them: matrix, range, HDR, square pixels, mirrors, alpha; and outputs say theirs."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from tasks.pictures.video import Frame, write_clip
from tasks.video.source import open_clip
from tests.worlds import clips

PIXELS = 2_000_000
RED = (230, 40, 30)
WEIGHTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}  # of red and blue in luma
CODES = {"601": 6, "709": 1, "2020": 9}


def to_yuv(rgb: Any, matrix: str, full: bool = False, bits: int = 8) -> list[int]:
    """rgb: in [0, 1]."""
    red, green, blue = rgb
    of_red, of_blue = WEIGHTS[matrix]
    y = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    u, v = (blue - y) / (2 - 2 * of_blue), (red - y) / (2 - 2 * of_red)
    scale, top = 1 << (bits - 8), (1 << bits) - 1
    if full:
        return [round(y * top), round((u + 0.5) * top), round((v + 0.5) * top)]
    return [round((16 + 219 * y) * scale), round((128 + 224 * u) * scale), round((128 + 224 * v) * scale)]


def write_flat(path: Path, yuv: list[int], size: tuple[int, int] = (64, 64), bits: int = 8, **tags: int) -> Path:
    """Write a lossless file of one colour.  size: (width, height).  tags: color_range, colorspace and so on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        planes = np.empty((3, size[1], size[0]), np.uint8 if bits == 8 else np.uint16)
        planes[:] = np.reshape(yuv, (3, 1, 1))
        frame = av.VideoFrame(*size, stream.pix_fmt)
        for plane, values in zip(frame.planes, planes, strict=True):
            rows = np.zeros((size[1], plane.line_size // values.itemsize), values.dtype)
            rows[:, : size[0]] = values
            plane.update(rows.tobytes())
        for name, value in tags.items():
            setattr(frame, name, value)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read(path: Path) -> np.ndarray:
    return next(open_clip(path, PIXELS).frames()).rgb


def signal(rgb: Any) -> np.ndarray:
    return np.array(rgb) / 255


@pytest.mark.parametrize(
    ("size", "matrix"), [((64, 64), "601"), ((720, 576), "601"), ((1280, 720), "709"), ((608, 1080), "709")]
)
def test_without_tags_a_large_picture_is_taken_as_bt709(tmp_path: Path, size: tuple[int, int], matrix: str) -> None:
    path = write_flat(tmp_path / "in.mkv", to_yuv(signal(RED), matrix), size)
    np.testing.assert_allclose(read(path)[5, 5], RED, atol=2)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["601", "709", "2020"])
def test_tags_of_matrix_and_range_are_honoured(tmp_path: Path, matrix: str, full: bool) -> None:
    for size in ((64, 64), (1280, 720)):
        path = write_flat(
            tmp_path / "in.mkv",
            to_yuv(signal(RED), matrix, full),
            size,
            colorspace=CODES[matrix],
            color_range=2 if full else 1,
        )
        np.testing.assert_allclose(read(path)[5, 5], RED, atol=2)


M_2020 = np.array([[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]])


def linear(rgb: Any) -> np.ndarray:
    values = signal(rgb)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def test_wide_primaries_become_srgb(tmp_path: Path) -> None:
    wide = M_2020 @ linear(RED)
    stored = np.where(wide <= 0.0031308, wide * 12.92, 1.055 * wide ** (1 / 2.4) - 0.055)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 14, "color_range": 1}
    path = write_flat(tmp_path / "in.mkv", to_yuv(stored, "2020", bits=10), bits=10, **tags)
    np.testing.assert_allclose(read(path)[5, 5], RED, atol=2)


def hlg(light: np.ndarray) -> np.ndarray:
    scene = light * 0.26496256
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 0.01)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def pq(light: np.ndarray) -> np.ndarray:
    y = (light * 203 / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


@pytest.mark.parametrize(("code", "curve"), [(16, pq), (18, hlg)])
@pytest.mark.parametrize("primaries", [9, 2])
def test_hdr_is_seen_as_the_same_picture_in_sdr(tmp_path: Path, code: int, curve: Any, primaries: int) -> None:
    tags = {"colorspace": primaries, "color_primaries": primaries, "color_trc": code, "color_range": 1}
    for rgb in (RED, (128, 128, 128), (30, 200, 60)):
        path = write_flat(tmp_path / "in.mkv", to_yuv(curve(M_2020 @ linear(rgb)), "2020", bits=10), bits=10, **tags)
        np.testing.assert_allclose(read(path)[5, 5], rgb, atol=4)
    white = write_flat(tmp_path / "white.mkv", to_yuv(curve(np.ones(3)), "2020", bits=10), bits=10, **tags)
    assert 245 <= read(white)[5, 5].min() <= read(white)[5, 5].max() <= 252
    bright = write_flat(tmp_path / "bright.mkv", to_yuv(curve(np.full(3, 3.7)), "2020", bits=10), bits=10, **tags)
    assert read(bright)[5, 5].min() >= 253


def test_what_the_container_alone_notes_counts() -> None:
    """The stored colour is (211, 61, 46) of Display P3 by BT.709's matrix, which the HEVC stream in it does not say."""
    path = PROJECT / "tests" / "data" / "p3_by_container.mkv"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.color_primaries, frame.colorspace) == (2, 2)
    np.testing.assert_allclose(read(path)[5, 5], RED, atol=3)


def test_colours_of_no_known_kind_are_refused_with_the_line_to_type(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "in.mkv", [500, 512, 512], bits=10, colorspace=14, color_trc=16, color_primaries=9)
    with pytest.raises(UserError, match="colours of the video are not read") as raised:
        read(path)
    assert raised.value.fields["found"] == "ICtCp"
    assert str(raised.value.hint).startswith("ffmpeg -i")


def test_dolby_vision_that_only_its_own_decoders_understand_is_refused(tmp_path: Path) -> None:
    path = clips.write_clip(tmp_path / "in.mp4", [np.full((64, 64, 3), RED, np.uint8)], sound=None)
    assert read(path).shape == (64, 64, 3)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"dva1"))
    with pytest.raises(UserError, match="Dolby Vision") as raised:
        read(path)
    assert str(raised.value.hint).startswith("ffmpeg -i")


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(4, 3), (64, 64)), (Fraction(3, 4), (48, 85)), (Fraction(1), (48, 64))]
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    path = tmp_path / "in.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        container.mux(stream.encode(av.VideoFrame(48, 64, "yuv420p")))
        container.mux(stream.encode())
    assert read(path).shape == (size[1], size[0], 3)
    with pytest.raises(UserError, match="too large") as raised:
        open_clip(path, size[0] * size[1] - 1)
    assert raised.value.fields["found"] == f"{size[0]}x{size[1]}"


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda rgb: rgb),
        ((-1, 0, 0, 1), lambda rgb: rgb[:, ::-1]),
        ((1, 0, 0, -1), lambda rgb: rgb[::-1]),
        ((-1, 0, 0, -1), lambda rgb: rgb[::-1, ::-1]),
        ((0, 1, -1, 0), lambda rgb: np.rot90(rgb, -1)),
        ((0, -1, 1, 0), lambda rgb: np.rot90(rgb, 1)),
        ((0, 1, 1, 0), lambda rgb: rgb.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda rgb: np.rot90(rgb, 2).swapaxes(0, 1)),
    ],
)
def test_every_turn_and_mirror_of_a_file_is_undone(tmp_path: Path, matrix: tuple[int, ...], shown: Any) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[:32, 48:] = 255, 120
    path = clips.write_clip(tmp_path / "in.mp4", [picture], sound=None)

    def coded(a: int, b: int, c: int, d: int) -> bytes:
        nine = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
        return b"".join(value.to_bytes(4, "big", signed=True) for value in nine)

    # The track's own matrix comes after the whole film's.
    before, after = path.read_bytes().rsplit(coded(1, 0, 0, 1), 1)
    path.write_bytes(before + coded(*matrix) + after)
    expected = shown(picture)
    seen = read(path)
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx", "qtrle"])
def test_alpha_is_on_white(tmp_path: Path, codec: str) -> None:
    path = tmp_path / ("in.mov" if codec == "qtrle" else "in.webm")
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., :3], rgba[:, 32:, 3] = RED, 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "argb" if codec == "qtrle" else "yuva420p"
        if codec == "libvpx":
            stream.options = {"auto-alt-ref": "0"}
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(open_clip(path, PIXELS).frames())
    assert len(frames) == 3
    for frame in frames:
        np.testing.assert_allclose(frame.rgb[32, 8], (255, 255, 255), atol=1)
        np.testing.assert_allclose(frame.rgb[32, 56], RED, atol=4)


@pytest.mark.parametrize("size", [(256, 256), (1536, 512)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_outputs_note_their_colours_and_keep_them(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    rgb = np.full((size[1], size[0], 3), RED, np.uint8)
    path = write_clip(tmp_path / f"out{suffix}", [Frame(rgb, 0, 1)], Fraction(1, 24), Fraction(24))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0]
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
        assert context.sample_aspect_ratio == 1
    np.testing.assert_allclose(read(path)[9, 9], RED, atol=3)
