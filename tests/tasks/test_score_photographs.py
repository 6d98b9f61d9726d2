"""Scores of photographs: the camera of a pseudo-label is found as its portrait's was."""

import numpy as np
from skimage import data

from data_catalog.config.profiles import load_settings
from models.faces.photo_judges import PhotoJudges
from models.zoo import zoo
from tasks import align
from tasks.score import Pair, _compare_photographs, camera_drifts, models

SETTINGS = load_settings("demo", ["portraits.source=tests", "align.size=256"])


def test_the_judges_follow_from_the_pictures_and_the_world() -> None:
    plain = ("clip", "identity", "landmarks", "lpips")
    assert models(load_settings("demo")) == plain
    assert models(SETTINGS) == (*plain, "faces", "matting", "face_api")
    aligned = load_settings("demo", ["portraits.source=tests", "align.faces=aligned"])
    assert "matting" not in models(aligned)
    assert models(load_settings("paper")) == (*plain, "safety", "matting", "face_api")


def test_the_drift_of_an_unchanged_portrait_is_small_and_a_mirrored_one_s_is_twice_its_yaw() -> None:
    detector = zoo.load("faces", "embedded")
    place = align.find_face(detector, data.astronaut(), SETTINGS)
    portrait = align.cut(data.astronaut(), place.crop, 256)
    turned = np.rot90(portrait, 2)
    mirrored, gone = np.ascontiguousarray(portrait[:, ::-1]), np.zeros_like(portrait)

    same, other, upside_down, nothing = camera_drifts(
        detector, np.stack([portrait, mirrored, turned, gone]), [place.camera] * 4, SETTINGS
    )

    assert same is not None
    assert same < 3
    assert other is not None
    assert other < 6
    assert upside_down is None or upside_down > 100
    assert nothing is None


def test_a_pair_without_judges_of_photographs_has_no_further_scores() -> None:
    picture = data.astronaut()[:256, 100:356]
    pair = Pair("k", "train", picture, picture, np.zeros(25))
    assert _compare_photographs(None, pair) == {}
    judges = PhotoJudges(*(zoo.load(name, "embedded") for name in ("faces", "matting", "face_api")))
    assert _compare_photographs(judges, pair) == {"faces": 1, "face_api_distance": 0.0, "change_outside": 0.0}
