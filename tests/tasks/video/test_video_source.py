"""Videos as they come: uneven rates, turned phones, damage, folders of frames; one message where nothing is to see."""

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_catalog.config.errors import UserError
from tasks.pictures.video import Frame, check_sound, write_clip
from tasks.video.source import open_clip
from tests.worlds import clips
from tests.worlds.processes import as_nobody, fork, memory_folder, wait

PIXELS = 1_000_000


def colours(count: int) -> list[np.ndarray]:
    """(64, 96, 3) uint8, each brighter than the one before."""
    return [np.full((64, 96, 3), 20 + 20 * number, np.uint8) for number in range(count)]


def test_an_uneven_rate_keeps_its_times_and_the_sound_its_bytes(tmp_path: Path) -> None:
    given = clips.write_clip(tmp_path / "in.mp4", colours(8))
    clip = open_clip(given, PIXELS)
    frames = list(clip.frames())
    assert [int(frame.rgb.mean()) for frame in frames] == pytest.approx([20 + 20 * n for n in range(8)], abs=4)
    times = clips.read_times(given)
    assert times == [Fraction(ms, 1000) for ms in clips.UNEVEN]
    for name in ("out.mp4", "out.mov", "out.mkv"):
        out = write_clip(tmp_path / name, frames, clip.time_base, clip.fps, clip.sound)
        # Matroska has no times before 0, where an AAC stream begins: there all of it comes a little later.
        shift = clips.read_times(out)[0]
        assert shift == (Fraction(21, 1000) if name == "out.mkv" else 0)
        assert clips.read_times(out) == [time + shift for time in times]
        heard, copied = clips.read_sound(given), clips.read_sound(out)
        assert [data for _, data in copied] == [data for _, data in heard]
        assert [time for time, _ in copied] == pytest.approx([time + shift for time, _ in heard], abs=0.001)
        if name != "out.mkv":
            assert clips.read_duration(out) == clips.read_duration(given)


def test_a_clip_without_sound_stays_without(tmp_path: Path) -> None:
    clip = open_clip(clips.write_clip(tmp_path / "in.mp4", colours(3), sound=None), PIXELS)
    out = write_clip(tmp_path / "out.mp4", clip.frames(), clip.time_base, clip.fps, clip.sound)
    assert len(clips.read_times(out)) == 3
    with pytest.raises(IndexError):
        clips.read_sound(out)


def test_times_that_stand_still_or_go_back_are_moved_on(tmp_path: Path) -> None:
    frames = [Frame(rgb, pts, 1) for rgb, pts in zip(colours(3), (5, 6, 9), strict=True)]
    out = write_clip(tmp_path / "late.mkv", frames, Fraction(1, 25), Fraction(25))
    assert [frame.pts for frame in open_clip(out, PIXELS).frames()] == [200, 240, 360]


def test_a_phone_held_upright_is_read_upright(tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48] = 255  # above, on the left
    path = clips.write_clip(tmp_path / "in.mp4", [picture], sound=None)

    def matrix(a: int, b: int, c: int, d: int, x: int) -> bytes:
        ones = [a << 16, b << 16, 0, c << 16, d << 16, 0, x << 16, 0, 1 << 30]
        return b"".join(value.to_bytes(4, "big", signed=True) for value in ones)

    # The track's own matrix comes after the whole film's: a quarter turn clockwise, as a phone writes it.
    before, after = path.read_bytes().rsplit(matrix(1, 0, 0, 1, 0), 1)
    path.write_bytes(before + matrix(0, 1, -1, 0, 64) + after)
    (frame,) = open_clip(path, PIXELS).frames()
    assert frame.rgb.shape == (96, 64, 3)
    assert frame.rgb[:40, 40:].mean() > 240  # above, on the right
    assert frame.rgb[:40, :24].mean() < 15


def test_a_folder_of_frames_is_taken_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("not taken")
    clip = open_clip(tmp_path, PIXELS)
    assert [(frame.rgb[0, 0, 0], frame.pts) for frame in clip.frames()] == [(9, 0), (10, 1), (100, 2)]
    before = clip.digest()
    (tmp_path / "frame_10.png").write_bytes(b"no picture")
    assert clip.digest() != before


def test_a_bad_frame_of_a_folder_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(5):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    for number in (0, 2, 4):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        frames = list(open_clip(tmp_path, PIXELS).frames())
    assert [(frame.rgb[0, 0, 0], frame.pts, frame.duration) for frame in frames] == [(1, 0, 3), (3, 3, 2)]
    assert "3 of 5 frames of" in caplog.text
    assert "the first is 0.png: not an image" in caplog.text
    for number in (1, 3):
        (tmp_path / f"{number}.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(UserError, match=r"no frame in .* can be read; 0\.png: not an image"):
        list(open_clip(tmp_path, PIXELS).frames())


def test_a_file_that_broke_off_gives_what_is_there_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 64, 96, 3), np.uint8)
    whole = clips.write_clip(tmp_path / "whole.mkv", list(noise), range(0, 2000, 40), sound=None)
    with caplog.at_level(logging.WARNING):
        assert len(list(open_clip(whole, PIXELS).frames())) == 50
        assert caplog.text == ""
        (tmp_path / "half.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        seen = len(list(open_clip(tmp_path / "half.mkv", PIXELS).frames()))
    assert 10 < seen < 40
    assert "half.mkv is damaged" in caplog.text
    assert "download it again" in caplog.text
    assert "of 2.0" in caplog.text


def test_what_holds_no_moving_picture_is_one_message(tmp_path: Path) -> None:
    whole = clips.write_clip(tmp_path / "whole.mp4", colours(3))
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><p>sign in</p>")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:2000])  # its index stood at its end
    clips.write_clip(tmp_path / "song.m4a", [])
    (tmp_path / "folder").mkdir()
    messages = {
        "empty.mp4": "is empty: 0 bytes",
        "text.mp4": "cannot be read as a video",
        "cut.mp4": "cannot be read as a video",
        "page.mp4": "cannot be read as a video",
        "song.m4a": "has no moving picture",
        "folder": "no picture in the folder",
        "nowhere.mp4": "there is no video",
    }
    for name, message in messages.items():
        with pytest.raises(UserError, match=message) as caught:
            open_clip(tmp_path / name, PIXELS)
        assert name in caught.value.message
        if name == "cut.mp4":
            assert "broke off" in caught.value.fields["found"]
            assert "download it again" in str(caught.value.hint)
        if name == "page.mp4":
            assert caught.value.fields["found"] == "a web page"
    with pytest.raises(UserError, match="too large"):
        open_clip(whole, 64 * 96 - 1)


def test_sound_that_the_new_file_cannot_hold_is_told_before_the_work(tmp_path: Path) -> None:
    given = clips.write_clip(tmp_path / "in.mkv", colours(3), sound="pcm_u8")
    check_sound(tmp_path / "out.mkv", given)
    with pytest.raises(UserError, match=r"cannot be stored in a \.mp4 file") as caught:
        check_sound(tmp_path / "out.mp4", given)
    assert caught.value.hint is not None
    assert "out.mkv" in caught.value.hint


def test_a_video_that_may_not_be_read_is_one_message() -> None:
    with memory_folder() as folder:
        folder.chmod(0o755)
        path = clips.write_clip(folder / "in.mp4", colours(1), sound=None)
        path.chmod(0)

        def read() -> None:
            as_nobody()
            with pytest.raises(UserError, match=r"in\.mp4 cannot be read as a video") as caught:
                open_clip(path, PIXELS)
            assert caught.value.fields == {"cause": "Permission denied"}

        assert wait(fork(read)) == 0
