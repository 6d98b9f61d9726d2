"""Cameras that came with portraits: every orbit camera passes, and each usual mistake is refused by its own reason."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_catalog.config.errors import UserError
from data_catalog.samples.encoding import encode_png
from models import camera, procedural
from models.faces import alignment, pnp
from models.faces.reconstruction import camera_pose
from tasks.sources.cameras import check_reconstruction, find_fault
from tasks.sources.cropping import middle_square
from tasks.sources.left_out import find_left_out
from tests.tasks.test_portraits import make_settings, picture, take

Label = np.ndarray

yaws = st.floats(-1.4, 1.4)  # as far as a face can be seen
pitches = st.floats(-0.9, 0.9)
turned = st.tuples(st.floats(0.25, 1.2), st.sampled_from([-1.0, 1.0])).map(lambda pair: pair[0] * pair[1])


def orbit(yaw: float, pitch: float, focal: float = camera.FOCAL, radius: float = camera.RADIUS) -> Label:
    label = camera.orbit_label(yaw, pitch, focal)[0].numpy().astype(np.float64)
    label[[3, 7, 11]] *= radius / camera.RADIUS
    return label


def changed(label: Label, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Label:
    pose, lens = change(label[:16].reshape(4, 4).copy(), label[16:].reshape(3, 3).copy())
    return np.concatenate([pose.ravel(), lens.ravel()])


@settings(deadline=None, max_examples=200)
@given(yaws, pitches, st.floats(2.0, 6.0), st.floats(1.8, 4.0))
def test_every_orbit_camera_passes(yaw: float, pitch: float, focal: float, radius: float) -> None:
    assert find_fault(orbit(yaw, pitch, focal, radius).tolist()) == ""
    mirrored = camera.mirror_label(camera.orbit_label(yaw, pitch))[0]
    assert find_fault(mirrored.tolist()) == ""


@settings(deadline=None, max_examples=50)
@given(yaws, pitches, st.integers(300, 900), st.integers(300, 900))
def test_the_camera_of_a_crop_of_a_labelled_photo_passes(yaw: float, pitch: float, width: int, height: int) -> None:
    side = min(width, height)
    crop = middle_square((width, height))
    label = orbit(yaw, pitch)
    label[16:] = [4.2647 * side / width, 0, 0.5, 0, 4.2647 * side / height, 0.5, 0, 0, 1]
    assert find_fault(label.tolist()) == ""
    assert find_fault(alignment.effective_camera(label, crop, (width, height)).tolist()) == ""


def test_the_cameras_of_raw_procedural_photos_and_of_pnp_pass() -> None:
    for seed in range(60):
        assert find_fault(procedural.raw_photo(seed).label.tolist()) == ""
    assert find_fault(pnp.frontal_label().tolist()) == ""


def pixels(pose: np.ndarray, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pose, lens * [[512], [512], [1]]


def degrees(pose: np.ndarray, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pose, np.array([[13.4, 0, 0.5], [0, 13.4, 0.5], [0, 0, 1]])


def flipped(*signs: float) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    return lambda pose, lens: (pose @ np.diag([*signs, 1.0]), lens)


def scaled(scale: float) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    def change(pose: np.ndarray, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pose[:3, 3] *= scale
        return pose, lens

    return change


def z_up(pose: np.ndarray, lens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]) @ pose, lens


MISTAKES = {
    "pixels": (pixels, "focal length 2184 2184, about 4.26 picture sides is expected", "in pixels?"),
    "degrees": (degrees, "focal length 13.4 13.4", "an angle in degrees?"),
    "radians": (lambda pose, lens: (pose, np.diag([0.23, 0.23, 1])), "focal length 0.23", ""),
    "opengl": (flipped(1, -1, -1), "it looks away from the head", "OpenGL's axes?"),
    "pytorch3d": (flipped(-1, -1, 1), "it is upside down", "PyTorch3D's axes?"),
    "left-handed": (flipped(1, -1, 1), "not a rotation: it mirrors", "y up and z forward?"),
    "columns": (lambda pose, lens: (pose.T, lens), "the last row of its 4x4 matrix", "written column by column?"),
    "inverse": (lambda pose, lens: (np.linalg.inv(pose), lens), "", "world to camera?"),
    "millimetres": (scaled(1000), "distance 2.7e+03 from the head, about 2.7 is expected", "in millimetres?"),
    "metres": (scaled(0.1), "distance 0.27", ""),
    "centre": (
        lambda pose, lens: (pose, lens + np.array([[0, 0, 0.5], [0, 0, 0], [0, 0, 0]])),
        "principal point 1",
        "",
    ),
    "shear": (lambda pose, lens: (pose @ np.diag([1.1, 1, 1, 1]), lens), "3x3 part is not a rotation", ""),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
@settings(deadline=None, max_examples=40)
@given(turned, turned.map(lambda angle: angle / 2))
def test_each_mistake_is_refused_by_its_own_reason(mistake: str, yaw: float, pitch: float) -> None:
    change, fault, cause = MISTAKES[mistake]
    found = find_fault(changed(orbit(yaw, pitch), change).tolist())
    assert found
    assert fault in found
    assert cause in found


@settings(deadline=None, max_examples=40)
@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_a_world_with_z_up_is_refused_where_the_face_looks_ahead(yaw: float, pitch: float) -> None:
    reasons = ("it is upside down or on its side", "it stands below the head: y up and z towards the face are expected")
    assert find_fault(changed(orbit(yaw, pitch), z_up).tolist()) in reasons


@pytest.mark.parametrize("label", [[], [1.0] * 24, [float("nan")] * 25, [*[1.0] * 24, float("inf")]])
def test_what_is_no_label_is_refused(label: list[float]) -> None:
    assert find_fault(label).startswith("25 finite numbers are expected, found ")


@settings(deadline=None, max_examples=100)
@given(st.floats(-0.5, 0.5), st.floats(-1.2, 1.2), st.floats(-0.4, 0.4), st.floats(-1.0, 1.0))
def test_reconstructions_of_visible_faces_pass(x: float, y: float, z: float, nearer: float) -> None:
    check_reconstruction(camera_pose((x, y, z), (0.0, 0.02, nearer)))


@pytest.mark.parametrize(
    ("angles", "moved", "reason"),
    [
        ((0.0, 2.9, 0.0), (0.0, 0.0, 0.0), "it stands behind the head"),
        ((0.0, 0.3, 0.0), (0.0, 20.0, -100.0), "distance 30"),
        ((0.0, 0.3, 0.0), (3.0, 0.0, 0.0), "it does not look at the head"),
        ((0.0, 0.0, 3.0), (0.0, 0.0, 0.0), "it is upside down"),
    ],
)
def test_a_reconstruction_that_saw_no_face_is_refused(
    angles: tuple[float, ...], moved: tuple[float, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        check_reconstruction(camera_pose(angles, moved))


def labelled(folder: Path, *labels: Label) -> Path:
    folder.mkdir()
    for number in range(len(labels)):
        (folder / f"{number}.png").write_bytes(encode_png(picture(number)))
    pairs = [[f"{number}.png", label.tolist()] for number, label in enumerate(labels)]
    (folder / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return folder


def test_a_bad_label_rejects_its_own_picture_and_a_plan_says_so(tmp_path: Path) -> None:
    failed = orbit(0.1, 0)
    failed[16] = np.nan
    chosen = make_settings(labelled(tmp_path / "some", orbit(0.3, 0), failed, changed(orbit(0.3, 0), pixels)))
    (told,) = find_left_out(chosen)
    assert told.said.startswith("2 of 3 pictures rejected: bad camera label, 25 finite numbers")
    assert told.names == ("1.png", "2.png")
    rows, summary = take(chosen, 0, tmp_path / "out")
    assert (summary.samples, summary.rejected) == (1, {"bad camera label": 2})
    reasons = {row["name"]: row["reason"] for row in rows}
    assert "in pixels? divide it by the picture's size, 512" in reasons["2.png"]


def test_no_good_label_at_all_is_an_error_before_the_work(tmp_path: Path) -> None:
    bad = changed(orbit(0.3, 0.1), flipped(1, -1, -1))
    with pytest.raises(UserError, match="bad camera label") as caught:
        find_left_out(make_settings(labelled(tmp_path / "all", bad, bad)))
    assert "OpenGL's axes?" in str(caught.value)
