"""Pictures of a user: procedural heads and photographs, upright or not, alone or in a group."""

import logging
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from data_catalog.config.profiles import load_settings
from flows.page.inputs import warn_of
from models import procedural
from models.faces import alignment
from models.zoo import zoo
from tasks import align
from tasks.sources.photographs import HEADS_ONLY, kind_of_faces
from tasks.student.api import Student
from tasks.student.companions import find_companions
from tasks.student.user_portrait import align_picture, find_detectors, locate
from tasks.video.source import open_clip
from tasks.video.track import track
from tests.tasks.test_align_photographs import head, photograph, two
from tests.worlds import pupil
from tests.worlds.clips import write_clip

PROCEDURAL = load_settings("demo")
PHOTOGRAPHS = load_settings("demo", ["portraits.source=tests"])


@pytest.mark.parametrize("settings", [PROCEDURAL, PHOTOGRAPHS], ids=["procedural", "photographs"])
def test_the_largest_face_of_a_group_on_its_side_is_cut_upright(
    settings: align.Settings, caplog: pytest.LogCaptureFixture
) -> None:
    group = np.ascontiguousarray(np.rot90(two()))
    with caplog.at_level(logging.WARNING):
        portrait = align_picture(group, find_detectors(settings), settings)
    assert (portrait.cropped, portrait.faces) == (True, 2)
    assert portrait.camera_source == ("pnp" if settings is PROCEDURAL else "mesh")
    assert "2 faces were found: the largest is taken" in caplog.text
    # Upright, as from the group upright.
    upright = align_picture(two(), find_detectors(settings), settings)
    assert np.abs(portrait.rgb.astype(float) - upright.rgb).mean() < 8
    assert np.abs(portrait.rgb[::-1].astype(float) - upright.rgb).mean() > 15
    found, _ = locate(group, find_detectors(settings), settings)
    middle = alignment.apply_affine(alignment.invert_affine(found.crop), [0.5, 0.5])
    assert middle == pytest.approx([230, 700], abs=60), "the larger of the two"


def test_a_procedural_head_keeps_the_points_of_its_own_detector() -> None:
    detector = zoo.load("landmarks", "embedded")
    for seed in range(4):
        rgb = procedural.raw_photo(seed).rgb
        own = align.fit_portrait(align.detect(detector, rgb, PROCEDURAL), PROCEDURAL)
        found, _ = locate(rgb, find_detectors(PROCEDURAL), PROCEDURAL)
        assert np.array_equal(found.camera, own.camera)


def test_a_photograph_is_told_from_a_procedural_head_which_the_networks_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    student = Student(pupil.network(), find_companions(PROCEDURAL), PROCEDURAL)
    heads = [procedural.raw_photo(seed).rgb for seed in range(4)]
    with caplog.at_level(logging.WARNING):
        assert not any(student.align(rgb).strange for rgb in heads)
        assert HEADS_ONLY not in caplog.text
        portraits = [student.align(data.astronaut()) for _ in range(2)]
    assert all(portrait.strange for portrait in portraits)
    assert caplog.text.count(HEADS_ONLY) == 1, "once a student"
    assert HEADS_ONLY[1:] in warn_of(portraits[0], detects=True)
    assert HEADS_ONLY[1:] not in warn_of(student.align(heads[0]), detects=True)


def test_a_picture_without_a_face_says_that_it_counts_as_frontal(caplog: pytest.LogCaptureFixture) -> None:
    for settings in (PROCEDURAL, PHOTOGRAPHS):
        caplog.clear()
        portrait = align_picture(data.coffee(), find_detectors(settings), settings)
        assert portrait.camera_source == "assumed_frontal"
        assert "taken as aligned and frontal: " in caplog.text


def test_an_exported_student_of_photographs_finds_the_same_face(tmp_path: Path) -> None:
    student = Student(pupil.network(), find_companions(PHOTOGRAPHS), PHOTOGRAPHS)
    student.save_pretrained(tmp_path / "out")
    again = Student.from_pretrained(tmp_path / "out")
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    assert (kind_of_faces(again.settings), kind_of_faces(PROCEDURAL)) == ("paper", "embedded")
    first, second = (
        align_picture(data.astronaut(), each.companions.detectors, each.settings) for each in (student, again)
    )
    assert (first.camera == second.camera).all()
    assert second.camera_source == "mesh"


def test_a_small_or_blurred_face_is_cut_all_the_same() -> None:
    portrait = align_picture(photograph((head(44), 200, 200)), find_detectors(PHOTOGRAPHS), PHOTOGRAPHS)
    assert portrait.camera_source == "mesh"


def test_a_video_follows_one_face_past_a_larger_one_and_while_it_is_lost(tmp_path: Path) -> None:
    size = (640, 480)
    frames = [photograph((head(110), 20 + 6 * step, 120), size=size) for step in range(3)]
    # A larger face comes in; then the first one is hidden for two frames.
    frames += [photograph((head(110), 38 + 6 * step, 120), (head(140), 360, 60), size=size) for step in range(2)]
    frames += [photograph((head(140), 360, 60), (head(60), 520, 330), size=size) for _ in range(2)]
    frames += [photograph((head(110), 62 + 6 * step, 120), (head(140), 360, 60), size=size) for step in range(2)]
    clip = open_clip(write_clip(tmp_path / "clip.mp4", frames), 10**7)

    seen = track(clip, align.find_detector(PHOTOGRAPHS), PHOTOGRAPHS, tmp_path / "track.jsonl")

    lost = [sighting.points is None for sighting in seen]
    assert lost[:8] == [False] * 5 + [True] * 2 + [False]
    places = [float(sighting.points[:, 0].mean()) for sighting in seen if sighting.points is not None]
    assert np.diff(places)[:5] == pytest.approx([6, 6, 6, 6, 18], abs=4)
