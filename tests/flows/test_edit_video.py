"""`stillroom edit-video`: each frame once, also after a kill; times and sound kept; the face followed smoothly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from mlflow import MlflowClient

from data_catalog.config.errors import UserError
from data_catalog.config.places import PROJECT
from flows import cli
from tasks.progress import Progress, listening
from tasks.video.edit import Edited, edit_clip
from tasks.video.source import open_clip
from tasks.video.track import smooth_curve, smooth_track, split_shots, track
from tests.worlds import clips, pupil

PIXELS = 1_000_000
PROMPT = "make the hair red"


def edit(path: Path, out: Path, root: Path, sides: bool = False) -> Edited:
    student = pupil.student()
    return edit_clip(student, open_clip(path, PIXELS), student.read_prompt(PROMPT, None), out, sides, root)


def read_pictures(path: Path) -> np.ndarray:
    """(N, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames at uneven times, with a tone."""
    return clips.write_clip(tmp_path_factory.mktemp("clip") / "talk.mp4", clips.moving_face(8))


@pytest.fixture(scope="module")
def whole(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip edited in one go."""
    folder = tmp_path_factory.mktemp("whole")
    edited = edit(clip, folder / "out.mp4", folder / "data")
    assert (edited.frames, edited.faces, edited.shots, edited.resumed_at) == (8, 8, 1, 0)
    assert list((folder / "data" / "video").iterdir()) == []  # nothing unfinished is left
    return folder / "out.mp4"


def test_input_edit_and_side_stand_beside_each_other_at_the_times_of_the_clip(clip: Path, whole: Path) -> None:
    assert clips.read_times(whole) == clips.read_times(clip)
    assert [data for _, data in clips.read_sound(whole)] == [data for _, data in clips.read_sound(clip)]
    pictures = read_pictures(whole).astype(float)
    assert pictures.shape == (8, 256, 768, 3)
    given, edited, side = np.split(pictures, 3, axis=2)
    assert np.abs(given - edited).mean() > 2
    assert np.abs(edited - side).mean() > 2
    assert np.abs(np.diff(given, axis=0)).mean() < 3  # the crop follows the face


def test_a_kill_at_a_frame_costs_no_frame_and_changes_no_byte(clip: Path, whole: Path, tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.flows import test_edit_video as t\n"
        "def hear(progress):\n"
        "    if progress.total and progress.step == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with t.listening(hear): t.edit(*map(Path, sys.argv[1:]))\n"
    )
    out = tmp_path / "out.mp4"
    command = [sys.executable, "-c", script, str(clip), str(out), str(tmp_path / "data")]
    ended = subprocess.run(command, cwd=PROJECT, check=False, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not out.exists()
    made: list[int] = []
    with listening(lambda progress: made.append(progress.step) if progress.total else None):
        edited = edit(clip, out, tmp_path / "data")
    assert edited.resumed_at == 3
    assert made == [4, 5, 6, 7, 8]
    assert out.read_bytes() == whole.read_bytes()


def test_another_prompt_or_clip_does_not_go_on_from_a_strangers_frames(clip: Path, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        if progress.total and progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(stop):
        edit(clip, tmp_path / "out.mp4", tmp_path)
    other = clips.write_clip(tmp_path / "other.mp4", clips.moving_face(2), sound=None)
    assert edit(other, tmp_path / "out.mp4", tmp_path).resumed_at == 0
    student = pupil.student()
    zombie = student.read_prompt("as a zombie", None)
    short = open_clip(other, PIXELS)
    first = edit_clip(student, short, zombie, tmp_path / "zombie.mp4", False, tmp_path)
    assert first.resumed_at == 0
    assert edit(clip, tmp_path / "out.mp4", tmp_path).resumed_at == 2


def test_two_processes_do_not_make_the_same_video(tmp_path: Path) -> None:
    given = clips.write_clip(tmp_path / "in.mp4", clips.moving_face(2), sound=None)

    def again(progress: Progress) -> None:
        with pytest.raises(UserError, match="another process is editing this video"):
            edit(given, tmp_path / "out.mp4", tmp_path)

    with listening(again):
        edit(given, tmp_path / "out.mp4", tmp_path)
    assert len(read_pictures(tmp_path / "out.mp4")) == 2


def test_views_are_videos_of_their_own(tmp_path: Path) -> None:
    given = clips.write_clip(tmp_path / "in.mp4", clips.moving_face(2))
    files = edit(given, tmp_path / "out.mp4", tmp_path, sides=True).files
    assert [path.name for path in files] == ["out.mp4", "out-edited.mp4", "out-right.mp4", "out-left.mp4"]
    together, edited, right, left = (read_pictures(path).astype(float) for path in files)
    assert edited.shape == (2, 256, 256, 3)
    assert np.abs(together[:, :, 256:512] - edited).mean() < 2  # but for compression
    assert np.abs(together[:, :, 512:] - right).mean() < 2
    assert np.abs(right - left).mean() > 4
    assert all(clips.read_sound(path) == clips.read_sound(files[0]) for path in files)


def test_a_face_that_is_lost_for_a_while_is_followed_and_a_cut_is_not_smoothed(tmp_path: Path) -> None:
    there, grey, black = (
        clips.moving_face(1)[0],
        np.full((128, 128, 3), 120, np.uint8),
        np.zeros((128, 128, 3), np.uint8),
    )
    pictures = [there, grey, there, black, black]
    given = clips.write_clip(tmp_path / "in.mkv", pictures, range(0, 200, 40), sound=None)
    student = pupil.student()
    found = track(open_clip(given, PIXELS), student.companions.landmarks, student.settings, tmp_path / "track.jsonl")
    assert [sighting.points is not None for sighting in found] == [True, False, True, False, False]
    assert [sighting.pts for sighting in found] == [0, 40, 80, 120, 160]
    assert split_shots(found) == [slice(0, 3), slice(3, 5)]
    poses = smooth_track(found, np.arange(5) / 25, student.settings, 0.06, 0.12)
    assert np.abs(poses[1].crop - (poses[0].crop + poses[2].crop) / 2).max() < 0.01
    assert [pose.camera_source for pose in poses] == ["pnp"] * 3 + ["assumed_frontal"] * 2
    points = found[2].points
    assert points is not None
    assert split_shots([*found[:2], found[2]._replace(points=points + 70)]) == [slice(0, 2), slice(2, 3)]
    # The notes go on where a kill cut a line in two.
    notes = (tmp_path / "track.jsonl").read_bytes()
    (tmp_path / "track.jsonl").write_bytes(notes[: len(notes) // 2])
    track(open_clip(given, PIXELS), student.companions.landmarks, student.settings, tmp_path / "track.jsonl")
    assert (tmp_path / "track.jsonl").read_bytes() == notes


def test_a_curve_loses_its_tremor_and_keeps_its_course_at_any_rate() -> None:
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.uniform(0.01, 0.08, 100))
    line = np.stack([3 * seconds - 1, 5 - seconds], axis=1)
    assert np.abs(smooth_curve(line, seconds, 0.1) - line).max() < 1e-9  # also at both ends: no lag
    noise = rng.normal(0, 1, line.shape)
    assert smooth_curve(line + noise, seconds, 0.15).std() > 0
    assert (smooth_curve(line + noise, seconds, 0.15) - line).std() < 0.5 * noise.std()
    assert np.array_equal(smooth_curve(line[:1], seconds[:1], 0.1), line[:1])


def test_what_could_not_be_written_is_told_before_the_work(clip: Path, tmp_path: Path) -> None:
    for out, message in (
        (tmp_path / "out.avi", "cannot write a video named"),
        (tmp_path / "nowhere" / "out.mp4", "cannot be written"),
        (clip, "would replace its input"),
    ):
        with pytest.raises(UserError, match=message):
            edit(clip, out, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_command_tracks_the_run_with_its_video(
    clip: Path, tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    pupil.store_student(tmp_path / "data")
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the command sets Prefect's own
    out = tmp_path / "out.mp4"
    with pytest.raises(SystemExit) as ended:
        cli.main(["edit-video", str(clip), "--prompt", PROMPT, "--out", str(out), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert (document["files"], document["frames"], document["faces"]) == ([str(out)], 8, 8)
    run = MlflowClient(mlflow_uri).get_run(document["mlflow_run_id"])
    assert (run.info.status, run.data.metrics["frames"], run.data.params["video.prompt"]) == ("FINISHED", 8, PROMPT)
    (logged,) = MlflowClient(mlflow_uri).list_artifacts(run.info.run_id, "videos")
    assert (logged.path, logged.file_size) == ("videos/out.mp4", out.stat().st_size)
    out.unlink()
    with pytest.raises(SystemExit) as ended:
        cli.main(["edit-video", str(clip), "--prompt", PROMPT, "--out", str(out)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines()[:2] == [str(out), "frames             8, with a face 8, shots 1"]
    (tmp_path / "song.mp4").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        cli.main(["edit-video", str(tmp_path / "song.mp4"), "--prompt", PROMPT, "--out", str(out)])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: the video ")


# Prefect's tables and MLflow's meet in one process only here, and SQLAlchemy 2.1 finds Prefect's old-fashioned.
@pytest.mark.filterwarnings("ignore:Type object .*UUID:DeprecationWarning")
def test_prefect_shows_how_far_it_is(
    clip: Path, tmp_path: Path, mlflow_uri: str, prefect_api: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import get_client

    from flows.edit_video import edit_video

    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    pupil.store_student(tmp_path / "data")
    document = edit_video(video=str(clip), prompt=PROMPT)
    assert document["files"] == [str(tmp_path / "data" / "edited.mp4")]
    with get_client(sync_client=True) as client:
        (progress,) = [row for row in client.read_artifacts() if row.key == "edit-video-progress"]
    assert progress.data == 100.0
    tags = MlflowClient(mlflow_uri).get_run(document["mlflow_run_id"]).data.tags
    assert tags["stillroom.prefect.flow_run_id"] == str(progress.flow_run_id)
