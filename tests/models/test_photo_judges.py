"""Judges of photographs: the same person is near, a changed background is a change outside."""

import cv2
import numpy as np
import pytest
from skimage import data

from models.faces.photo_judges import PhotoJudges
from models.zoo import zoo


@pytest.fixture(scope="module")
def judges() -> PhotoJudges:
    return PhotoJudges(*(zoo.load(name, "embedded") for name in ("faces", "matting", "face_api")))


def portrait() -> np.ndarray:
    """The astronaut's head and shoulders, (256, 256, 3) uint8."""
    return cv2.resize(data.astronaut()[0:220, 110:330], (256, 256), interpolation=cv2.INTER_CUBIC)


def other() -> np.ndarray:
    """A rendered head, which is another person."""
    from benchmarks.photos import read_heads

    head = next(head.rgb for head in read_heads() if (head.yaw_deg, head.pitch_deg) == (-8.571, 5.0))
    return cv2.resize(head, (256, 256), interpolation=cv2.INTER_CUBIC)


def test_a_mirrored_or_brighter_face_is_the_same_person_and_another_head_is_not(judges: PhotoJudges) -> None:
    picture = portrait()
    brighter = np.clip(picture * 1.15, 0, 255).astype(np.uint8)
    assert judges.compare(picture, picture).distance == 0
    for same in (np.ascontiguousarray(picture[:, ::-1]), brighter):
        assert 0 < judges.compare(picture, same).distance < 0.4
    assert judges.compare(picture, other()).distance > 0.6


def test_faces_are_counted_and_one_that_is_gone_has_no_distance(judges: PhotoJudges) -> None:
    picture = portrait()
    gone = np.full_like(picture, 120)
    assert judges.compare(picture, gone)[:2] == (0, None)
    twins = np.concatenate([picture, picture[:, ::-1]], axis=1)
    assert judges.compare(twins, twins)[:2] == (2, 0)


def test_only_what_changes_behind_a_person_counts_as_outside(judges: PhotoJudges) -> None:
    picture = portrait()
    person = judges.matting.person(picture)
    assert person[128, 128] > 0.9
    assert person[20:60, 5:40].max() < 0.3
    behind, before = picture.copy(), picture.copy()
    behind[person < 0.1] = 255 - behind[person < 0.1]
    before[100:150, 100:150] = 255 - before[100:150, 100:150]  # the face
    assert judges.compare(picture, picture).outside == 0
    assert judges.compare(picture, behind).outside > 10 * judges.compare(picture, before).outside
