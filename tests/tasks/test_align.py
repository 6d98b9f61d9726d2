"""Crop and camera: the crop's geometry is exact, PnP finds known cameras, and everything is joined by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_png
from data_catalog.store.record import Record
from data_catalog.store.stage import Input, Partition, Summary, Work
from models import camera, procedural
from models.faces import alignment, pnp
from tasks import align, portraits

Row = dict[str, Any]


def project(label: np.ndarray, points: np.ndarray) -> np.ndarray:
    """World points (N, 3) to [0, 1] (N, 2), written out by hand."""
    cam2world, intrinsics = label[:16].reshape(4, 4), label[16:].reshape(3, 3)
    rays = (points - cam2world[:3, 3]) @ cam2world[:3, :3] @ intrinsics.T
    return rays[:, :2] / rays[:, 2:]


def test_the_canonical_face_before_the_frontal_camera_is_its_own_crop() -> None:
    seen = project(pnp.frontal_label(), pnp.canonical_face("embedded").mean)
    crop = alignment.crop_transform(seen * 512, alignment.framing("embedded"))
    assert np.abs(alignment.apply_affine(crop, seen * 512) - seen).max() < 1e-3


def test_the_frontal_label_is_the_one_of_the_camera_module() -> None:
    assert np.abs(pnp.frontal_label() - camera.orbit_label(0.0, 0.0)[0].numpy()).max() < 1e-6


def test_roll_scale_and_offset_of_the_photo_do_not_move_the_crop() -> None:
    points = np.array([[20.0, 30], [44, 31], [33, 45], [23, 55], [42, 56]])
    angle, scale = 0.7, 1.8
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points @ turn.T + [300, -40]
    first = alignment.apply_affine(alignment.crop_transform(points), points)
    second = alignment.apply_affine(alignment.crop_transform(moved), moved)
    assert np.abs(first - second).max() < 1e-9


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.zeros((4, 2))])
def test_points_that_span_no_face_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError):
        alignment.crop_transform(points)


def test_the_effective_camera_projects_as_photo_and_crop_do() -> None:
    photo = procedural.raw_photo(5)
    crop = alignment.crop_transform(photo.landmarks)
    label = alignment.effective_camera(photo.label.numpy(), crop, (128, 128))
    world = np.random.default_rng(0).uniform(-0.4, 0.4, (20, 3))
    by_photo = alignment.apply_affine(crop, project(photo.label.numpy().astype(float), world) * 128)
    assert np.abs(project(label, world) - by_photo).max() < 1e-6
    rotation = label[:16].reshape(4, 4)[:3, :3]
    assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-6


def test_an_oblong_photo_has_an_exact_camera_too() -> None:
    label = np.concatenate([pnp.frontal_label()[:16], [2.0, 0, 0.45, 0, 3.0, 0.55, 0, 0, 1]])
    crop = alignment.crop_transform([[200.0, 150], [260, 170], [230, 195], [195, 215], [250, 230]])
    world = np.random.default_rng(1).uniform(-0.4, 0.4, (20, 3))
    by_photo = alignment.apply_affine(crop, project(label, world) * [600, 400])
    assert np.abs(project(alignment.effective_camera(label, crop, (600, 400)), world) - by_photo).max() < 1e-9


def test_the_cut_is_what_the_effective_camera_sees() -> None:
    photo = procedural.raw_photo(3)
    crop = alignment.crop_transform(photo.landmarks)
    label = torch.from_numpy(alignment.effective_camera(photo.label.numpy(), crop, (128, 128))).float()
    truth = procedural.render(photo.person, label, 64).rgb.numpy() * 255.0
    error = align.cut(photo.rgb, crop, 64).astype(float) - truth
    assert 10 * np.log10(255**2 / (error**2).mean()) > 33  # half a pixel off is 26 dB


def test_a_large_photo_is_shrunk_without_aliasing() -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 255
    picture = align.cut(stripes, align.middle_square((1000, 1000)), 64)
    assert np.abs(picture.astype(int) - 127).max() <= 3


def test_the_centred_rotation_looks_through_the_middle() -> None:
    label = camera.orbit_label(0.3, 0.1)[0].numpy().astype(float)
    assert alignment.rotation_angle_deg(alignment.centred_rotation(label), label[:16].reshape(4, 4)[:3, :3]) < 1e-5
    shifted = label.copy()
    shifted[18] = 0.7
    expected = np.rad2deg(np.arctan(0.2 / camera.FOCAL))
    turned = alignment.centred_rotation(shifted)
    assert alignment.rotation_angle_deg(turned, alignment.centred_rotation(label)) == pytest.approx(expected, rel=1e-4)
    # The picture's middle shows a point to the left of the optical axis: the turned camera looks to its left.
    forward = np.linalg.inv(label[:16].reshape(4, 4))[:3, :3] @ turned[:, 2]
    assert forward[0] < 0


@pytest.mark.parametrize("world", ["embedded", "paper"])
@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.35, 0.0), (-0.5, 0.15), (0.1, -0.2)])
def test_pnp_finds_the_camera_of_a_canonical_face(world: str, yaw: float, pitch: float) -> None:
    truth = camera.orbit_label(yaw, pitch)[0].numpy().astype(float)
    face = pnp.canonical_face(world)
    fit = pnp.fit_camera(project(truth, face.mean), face)
    rotations = (label[:16].reshape(4, 4)[:3, :3] for label in (fit.label, truth))
    assert alignment.rotation_angle_deg(*rotations) < 3.5  # what is expected of cameras pulls a little
    assert fit.reprojection < 0.005
    assert np.linalg.norm(fit.label[:16].reshape(4, 4)[:3, 3]) == pytest.approx(2.7)
    assert fit.label[16:].tolist() == [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]


def test_an_unusual_face_is_not_taken_for_a_turned_one() -> None:
    """With the ways in which faces differ, its camera is found better than by the mean face alone."""
    face = pnp.canonical_face("embedded")
    narrow = face._replace(modes=face.modes[:0])
    wider = face.mean + 2.0 * face.modes[0]  # eyes far apart
    truth = camera.orbit_label(0.4, 0.0)[0].numpy().astype(float)
    fits = [pnp.fit_camera(project(truth, wider), known) for known in (face, narrow)]
    rotations = [alignment.centred_rotation(fit.label) for fit in fits]
    errors = [alignment.rotation_angle_deg(one, alignment.centred_rotation(truth)) for one in rotations]
    assert errors[0] < 0.6 * errors[1]


def test_the_modes_of_the_landmarks_are_those_of_the_identities() -> None:
    faces = torch.stack([procedural.landmarks(procedural.portrait(seed)) for seed in range(400)])
    modes = procedural.LANDMARK_MODES.flatten(1)
    assert (faces.mean(0) - procedural.CANONICAL_LANDMARKS).abs().max() < 1e-3
    assert torch.allclose(torch.cov(faces.flatten(1).T), modes.T @ modes, atol=3e-6)


def intake(source: Path | str, folder: Path, *overrides: str) -> tuple[Settings, Input]:
    """The portraits of a source's first block, taken in."""
    settings = load_settings("demo", [f"portraits.source={source}", *overrides])
    partition = Partition("portraits", None, 0)
    folder.mkdir()
    portraits.run(Work(partition, {}, settings, portraits.sources(settings, partition), folder))
    record = Record(
        partition=partition.key,
        stage="portraits",
        version=1,
        fingerprint="",
        fingerprint_inputs={},
        digest="",
        files={},
    )
    return settings, Input(partition, folder, "", record)


def align_all(settings: Settings, portraits_made: Input, folder: Path) -> tuple[dict[str, Row], Summary]:
    partition = Partition("align", None, 0)
    folder.mkdir()
    sources = align.sources(settings, partition)
    summary = align.run(Work(partition, {"portraits": [portraits_made]}, settings, sources, folder))
    rows = pq.read_table(folder / "align.parquet").to_pylist()
    for row in rows:
        assert (folder / "aligned" / f"{row['portrait_id']}.png").exists() == (row["status"] == "ok")
    return {row["name"]: row for row in rows}, summary


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, procedural.RawPhoto]:
    """A folder of six raw photographs whose cameras are known."""
    (tmp_path / "photos").mkdir()
    taken = {f"photo_{seed}.png": procedural.raw_photo(seed) for seed in range(6)}
    for name, photo in taken.items():
        (tmp_path / "photos" / name).write_bytes(encode_png(photo.rgb))
    return taken


def rotation_error_deg(row: Row, photo: procedural.RawPhoto) -> float:
    truth = alignment.effective_camera(photo.label.numpy(), np.reshape(row["crop"], (2, 3)), (128, 128))
    rotations = (alignment.centred_rotation(label) for label in (row["camera"], truth))
    return alignment.rotation_angle_deg(*rotations)


def test_a_landmark_file_gives_crops_and_cameras(photos: dict[str, procedural.RawPhoto], tmp_path: Path) -> None:
    points = {name: photo.landmarks.tolist() for name, photo in reversed(photos.items())}
    (tmp_path / "photos" / "landmarks.json").write_text(json.dumps(points))
    settings, made = intake(tmp_path / "photos", tmp_path / "portraits")
    rows, summary = align_all(settings, made, tmp_path / "align")
    assert (summary.samples, summary.metrics["camera_pnp"]) == (6, 6.0)
    assert np.median([rotation_error_deg(rows[name], photo) for name, photo in photos.items()]) < 5
    for name, photo in photos.items():
        assert np.abs(np.reshape(rows[name]["landmarks"], (5, 2)) - photo.landmarks).max() < 1e-4
        assert (rows[name]["true_camera"], rows[name]["rotation_error_deg"]) == (None, None)


def test_a_missing_face_does_not_move_the_others_cameras(
    photos: dict[str, procedural.RawPhoto], tmp_path: Path
) -> None:
    points: dict[str, Any] = {name: photo.landmarks.tolist() for name, photo in photos.items()}
    folder = tmp_path / "photos"
    (folder / "landmarks.json").write_text(json.dumps(points))
    settings, made = intake(folder, tmp_path / "portraits")
    whole, _ = align_all(settings, made, tmp_path / "whole")
    del points["photo_0.png"]
    points["photo_1.png"] = [[1, 2]]
    points["photo_2.png"] = [[5, 5]] * 5
    points["photo_3.png"] = [[x + 200, y] for x, y in points["photo_3.png"]]
    (folder / "landmarks.json").write_text(json.dumps(points))
    holed, summary = align_all(settings, made, tmp_path / "holed")
    assert summary.rejected == {
        "no landmarks for this picture": 1, "unusable landmarks": 2, "landmarks lie outside the picture": 1
    }  # fmt: skip
    assert all(holed[name] == whole[name] for name in ("photo_4.png", "photo_5.png"))
    assert holed["photo_2.png"]["reason"] == "unusable landmarks: the landmarks span no face"


def test_landmarks_of_something_else_are_rejected(photos: dict[str, procedural.RawPhoto], tmp_path: Path) -> None:
    points = {name: photo.landmarks.tolist() for name, photo in photos.items()}
    points["photo_0.png"][2][0] += 25  # a nose where the cheek is
    (tmp_path / "landmarks.json").write_text(json.dumps(points))
    settings, made = intake(
        tmp_path / "photos", tmp_path / "portraits", f"align.landmarks={tmp_path / 'landmarks.json'}"
    )
    rows, summary = align_all(settings, made, tmp_path / "align")
    assert summary.rejected == {"landmarks are not those of a face": 1}
    assert rows["photo_0.png"]["status"] == "rejected"


def test_eg3d_detections_are_read(photos: dict[str, procedural.RawPhoto], tmp_path: Path) -> None:
    (tmp_path / "photos" / "detections").mkdir()
    for name, photo in list(photos.items())[1:]:
        lines = "".join(f"{x:.4f} {y:.4f}\n" for x, y in photo.landmarks)
        (tmp_path / "photos" / "detections" / name.replace(".png", ".txt")).write_text(lines)
    settings, made = intake(tmp_path / "photos", tmp_path / "portraits")
    rows, summary = align_all(settings, made, tmp_path / "align")
    assert (summary.samples, summary.rejected) == (5, {"no landmarks for this picture": 1})
    assert rows["photo_0.png"]["reason"] == "no landmarks for this picture"


def test_given_labels_are_used_as_they_are(photos: dict[str, procedural.RawPhoto], tmp_path: Path) -> None:
    labels = [[name, [float(value) for value in photo.label]] for name, photo in photos.items()]
    labels[0][1] = [1.0] * 25
    (tmp_path / "photos" / "dataset.json").write_text(json.dumps({"labels": labels}))
    settings, made = intake(tmp_path / "photos", tmp_path / "portraits")
    rows, summary = align_all(settings, made, tmp_path / "align")
    assert (summary.samples, summary.rejected) == (5, {})  # the bad one is no portrait
    for name, label in labels[1:]:
        assert (rows[name]["camera"], rows[name]["camera_source"]) == (label, "given")
        assert rows[name]["crop"] == [1 / 128, 0, 0, 0, 1 / 128, 0]


def test_pictures_count_as_frontal_only_where_the_settings_say_so(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    wide = np.zeros((200, 300, 3), np.uint8)
    wide[:, 50:250] = [10, 200, 30]
    (tmp_path / "photos" / "wide.png").write_bytes(encode_png(wide))
    settings, made = intake(tmp_path / "photos", tmp_path / "portraits")
    rows, summary = align_all(settings, made, tmp_path / "looked")
    assert (rows["wide.png"]["reason"], summary.rejected) == ("no face found", {"no face found": 1})
    settings = load_settings("demo", [f"portraits.source={tmp_path / 'photos'}", "align.faces=aligned"])
    rows, summary = align_all(settings, made, tmp_path / "align")
    row = rows["wide.png"]
    assert summary.metrics == {"camera_assumed_frontal": 1.0}
    assert (row["camera_source"], row["landmarks"]) == ("assumed_frontal", None)
    assert np.allclose(row["camera"], pnp.frontal_label())
    with Image.open(tmp_path / "align" / "aligned" / f"{row['portrait_id']}.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (64, 64, 3)
    assert (pixels[4:-4, 4:-4] == [10, 200, 30]).all()  # the rim mixes with what was cut off


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert (align.cut(rgb, align.middle_square((64, 64)), 64) == rgb).all()


def test_a_landmark_file_that_cannot_be_read_is_the_users_to_mend(photos: Any, tmp_path: Path) -> None:
    settings, made = intake(tmp_path / "photos", tmp_path / "portraits", "align.landmarks=nowhere.json")
    with pytest.raises(UserError, match="no file"):
        align_all(settings, made, tmp_path / "a")
    (tmp_path / "photos" / "landmarks.json").write_text("[1, 2")
    settings, _ = intake(tmp_path / "photos", tmp_path / "again")
    with pytest.raises(UserError, match="cannot be read"):
        align_all(settings, made, tmp_path / "b")


def test_the_detector_aligns_procedural_photos(tmp_path: Path) -> None:
    settings, made = intake("procedural", tmp_path / "portraits", "portraits.count=12")
    rows, summary = align_all(settings, made, tmp_path / "align")
    assert summary.samples >= 11
    assert summary.metrics["rotation_error_deg_median"] < 8
    for row in rows.values():
        if row["status"] == "ok":
            photo = procedural.raw_photo(row["seed"])
            assert np.abs(np.reshape(row["landmarks"], (5, 2)) - photo.landmarks).mean() < 2.5
            assert rotation_error_deg(row, photo) == pytest.approx(row["rotation_error_deg"], abs=1e-3)
