import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_png
from models.camera import orbit_label, project
from models.faces import pnp
from models.faces.landmarks import LandmarkNet
from models.faces.recognition import Recogniser
from models.judges.identity import IdentityNet
from models.judges.perceptual import Perceptual
from tasks.score import Judges, Pair, camera_drifts, compare_faces, cosine, is_constant, score_block
from tasks.tables.edits import EDITS, Edited
from tasks.tables.faces import FACES, Face, landmarks_of
from tasks.tables.scores import MEASURES, Scores
from tests.worlds.tiny import noise_picture, tiny_clip

SETTINGS = Settings()
CAPTIONS = ("a photo of a person", "a photo of a zombie")
CAMERA = orbit_label(0.1, 0.0)[0].tolist()


@pytest.fixture(scope="module")
def judges() -> Judges:
    clip = tiny_clip()
    torch.manual_seed(0)
    return Judges(clip, Recogniser(IdentityNet().eval()), LandmarkNet().eval(), Perceptual.untrained().eval())


def write_pairs(folder: Path, pairs: dict[str, tuple[np.ndarray, np.ndarray | None]]) -> tuple[Path, Path]:
    """Folders of an edit and an align partition; a pseudo-label that is None was rejected by the editor."""
    edit, align = folder / "edit", folder / "align"
    (edit / "pseudo_labels").mkdir(parents=True)
    (align / "aligned").mkdir(parents=True)
    made, portraits = [], []
    for key, (portrait, pseudo_label) in sorted(pairs.items()):
        good = pseudo_label is not None
        made.append(
            Edited(
                key=key,
                portrait_id=f"of-{key}",
                split="train",
                style="zombie",
                prompt="",
                prompt_number=0,
                prompt_split="train",
                seed=0,
                status="ok" if good else "rejected",
                reason="" if good else "editor: ValueError",
            )
        )
        portraits.append(Face(portrait_id=f"of-{key}", split="train", camera=CAMERA))
        (align / "aligned" / f"of-{key}.png").write_bytes(encode_png(portrait))
        if pseudo_label is not None:
            (edit / "pseudo_labels" / f"{key}.png").write_bytes(encode_png(pseudo_label))
    EDITS.write(edit, made)
    FACES.write(align, portraits)
    return edit, align


def score(judges: Judges, folder: Path, pairs: Any, settings: Settings = SETTINGS) -> dict[str, dict[str, Any]]:
    edit, align = write_pairs(folder, pairs)
    return {row.key: vars(row) for row in score_block(judges, edit, align, CAPTIONS, settings)}


def test_an_edit_that_changed_nothing_scores_as_the_same_picture(judges: Judges, tmp_path: Path) -> None:
    row = score(judges, tmp_path, {"same": (noise_picture(0), noise_picture(0))})["same"]
    assert row["score_ssim"] == row["score_clip_image"] == row["score_identity"] == pytest.approx(1.0)
    assert row["score_lpips"] == pytest.approx(0.0, abs=1e-6)
    assert row["score_clip_direction"] == 0.0
    assert (row["decodes"], row["score_constant"], row["score_unsafe"]) == (True, False, None)


def test_a_black_frame_is_scored_and_named_constant(judges: Judges, tmp_path: Path) -> None:
    row = score(judges, tmp_path, {"black": (noise_picture(0), np.zeros((64, 64, 3), np.uint8))})["black"]
    assert row["decodes"]
    assert row["score_constant"]
    assert all(np.isfinite(row[name]) for name in MEASURES if row[name] is not None)
    assert row["score_lpips"] > 0.01


def test_a_frame_of_one_colour_is_constant_whatever_the_colour() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    assert is_constant(red, SETTINGS.score)
    assert not is_constant(noise_picture(0), SETTINGS.score)


def test_damaged_and_missing_pictures_are_rows_without_scores(judges: Judges, tmp_path: Path) -> None:
    good = (noise_picture(0), noise_picture(1))
    edit, align = write_pairs(tmp_path, {"bad": good, "good": good, "none": (noise_picture(2), None)})
    (edit / "pseudo_labels" / "bad.png").write_bytes(b"\x89PNG")
    rows = {row.key: row for row in score_block(judges, edit, align, CAPTIONS, SETTINGS)}
    assert rows["bad"] == Scores(key="bad", split="train", reason="pseudo-label: corrupt")
    assert rows["none"] == Scores(key="none", split="train", reason="editor: ValueError")
    assert rows["good"].decodes
    assert rows["good"].score_lpips is not None


def test_scores_do_not_depend_on_the_batch(judges: Judges, tmp_path: Path) -> None:
    pairs = {f"k{i}": (noise_picture(i), noise_picture(i + 10)) for i in range(5)}
    small = SETTINGS.model_copy(update={"score": SETTINGS.score.model_copy(update={"batch_size": 2})})
    first, second = score(judges, tmp_path / "a", pairs), score(judges, tmp_path / "b", pairs, small)
    for key, row in first.items():
        for name in MEASURES:
            assert row[name] == pytest.approx(second[key][name], abs=2e-5)


def test_the_direction_is_that_of_the_caption(judges: Judges, tmp_path: Path) -> None:
    row = score(judges, tmp_path, {"k": (noise_picture(0), noise_picture(1))})["k"]
    before, after = judges.clip.embed_images(np.stack([noise_picture(0), noise_picture(1)])).numpy()
    source, target = judges.clip.embed_texts(CAPTIONS).numpy()
    assert row["score_clip_direction"] == pytest.approx(cosine(after - before, target - source), abs=1e-4)
    assert row["score_clip_text"] == pytest.approx(float(after @ target), abs=1e-4)


class SureDetector:
    """Finds the canonical face as a camera sees it: a detector without error or doubt."""

    def __init__(self, yaws: list[float], confidence: float = 1.0) -> None:
        face = torch.from_numpy(pnp.canonical_face("embedded").mean).float()
        labels = orbit_label(torch.tensor(yaws), 0.0)
        self.points = project(face.expand(len(yaws), -1, -1), labels).numpy()
        self.confidence = np.full(len(yaws), confidence)

    def detect(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.points, self.confidence


def test_camera_drift_is_the_angle_by_which_the_face_turned() -> None:
    cameras = [np.array(CAMERA)] * 2
    pictures = np.zeros((2, 64, 64, 3), np.uint8)
    still, turned = camera_drifts(SureDetector([0.1, 0.4]), pictures, cameras, SETTINGS)  # type: ignore[arg-type]
    assert still is not None
    assert turned is not None
    assert still < 1.0
    assert turned == pytest.approx(np.rad2deg(0.3), abs=2.0)


def test_a_face_that_is_not_found_has_no_drift() -> None:
    unsure = SureDetector([0.4], confidence=0.01)
    pictures = np.zeros((1, 64, 64, 3), np.uint8)
    assert camera_drifts(unsure, pictures, [np.array(CAMERA)], SETTINGS) == [None]  # type: ignore[arg-type]


def test_scores_are_json_numbers(judges: Judges, tmp_path: Path) -> None:
    row = score(judges, tmp_path, {"k": (noise_picture(0), noise_picture(1))})["k"]
    json.dumps(row, allow_nan=False)


def test_both_faces_of_a_pair_are_cut_where_the_portrait_s_landmarks_are() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    portrait, edited = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    label = orbit_label(0.0, 0.0)[0].numpy()
    plain = Recogniser(IdentityNet().eval())
    turned = np.array([[0.5, 0.3], [0.8, 0.3], [0.7, 0.5], [0.5, 0.7], [0.8, 0.7]])
    pair = Pair("k", "train", portrait, edited, label, turned)
    at_landmarks = plain.embed(np.stack([portrait, edited]), np.stack([turned, turned]))
    at_camera = plain.embed_seen(np.stack([portrait, edited]), np.stack([label, label]))
    for found, faces in ((pair, at_landmarks), (replace(pair, points=None), at_camera)):
        assert compare_faces(plain, [found])[0] == pytest.approx(float(faces[0] @ faces[1]), abs=1e-6)
    assert float(at_landmarks[0] @ at_landmarks[1]) != pytest.approx(float(at_camera[0] @ at_camera[1]), abs=1e-3)


def test_landmarks_are_told_in_the_aligned_picture() -> None:
    crop = [1 / 100, 0.0, -0.1, 0.0, 1 / 100, -0.2]
    face = Face(portrait_id="p", split="train", crop=crop, landmarks=[10.0, 20.0, 60.0, 70.0] + [35.0, 45.0] * 3)
    found = landmarks_of(face)
    assert found is not None
    assert found[:3] == pytest.approx(np.array([[0.0, 0.0], [0.5, 0.5], [0.25, 0.25]]))
    assert landmarks_of(replace(face, landmarks=None)) is None
