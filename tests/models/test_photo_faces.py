"""Faces in photographs: found at every size and orientation, with cameras that agree with the truth."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from skimage import data

from benchmarks.photos import by_five, by_mesh, constant_rotation, read_heads, rotation_errors_deg, see_heads
from models.faces import blazeface
from models.faces.photo_faces import PhotoFace, PhotoFaces
from models.zoo import zoo

GROUND = (90, 120, 140)


@pytest.fixture(scope="module")
def detector() -> PhotoFaces:
    loaded: PhotoFaces = zoo.load("faces", "embedded")
    return loaded


def clear(detector: PhotoFaces, rgb: np.ndarray) -> list[PhotoFace]:
    return [face for face in detector.find(rgb) if face.clear]


def on_ground(picture: np.ndarray, place: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A picture inside an even one.  place: its left and top.  size: width and height, px."""
    whole = np.full((size[1], size[0], 3), GROUND, np.uint8)
    whole[place[1] : place[1] + picture.shape[0], place[0] : place[0] + picture.shape[1]] = picture
    return whole


def face_of(size_px: int) -> np.ndarray:
    """The astronaut's head, its landmarks about `size_px` px high."""
    head = data.astronaut()[20:220, 120:320]
    side = round(200 * size_px / 108)
    return cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)


def test_every_rendered_head_is_found_and_its_camera_is_near_the_true_one(detector: PhotoFaces) -> None:
    heads = read_heads()

    seen = see_heads(detector, heads)

    assert len(seen) == len(heads) == 48
    errors = rotation_errors_deg(seen, "468 points, gain", 45.0)
    assert len(errors) == 36
    assert np.median(errors) <= 3
    assert np.percentile(errors, 90) <= 6
    for worse in ("468 points", "5 points, mean face"):
        assert np.median(errors) < 0.7 * np.median(rotation_errors_deg(seen, worse, 45.0))
    assert np.allclose(constant_rotation(seen, "468 points, gain") @ [1, 0, 0], [1, 0, 0], atol=0.03), "a pitch alone"


def test_a_head_that_turns_to_the_right_is_seen_from_the_left(detector: PhotoFaces) -> None:
    heads = {(round(head.yaw_deg), round(head.pitch_deg)): head for head in read_heads()}
    for (yaw, _), head in heads.items():
        if abs(yaw) in (26, 43):
            found = detector.pose(clear(detector, head.rgb)[0]).yaw_pitch_roll_deg
            assert found[0] == pytest.approx(yaw, abs=8)
    above, below = (detector.pose(clear(detector, heads[9, pitch].rgb)[0]) for pitch in (25, -25))
    assert above.yaw_pitch_roll_deg[1] > 20 > -10 > below.yaw_pitch_roll_deg[1]


def test_the_astronaut_has_one_face_wherever_it_is_turned(detector: PhotoFaces) -> None:
    picture = data.astronaut()
    (upright,) = clear(detector, picture)
    assert upright.five == pytest.approx(
        np.array([[203.6, 102.5], [246.6, 104.7], [223.2, 127.0], [200.9, 139.2], [246.0, 141.8]]), abs=3
    )
    for turns in (1, 2, 3):
        (face,) = clear(detector, np.ascontiguousarray(np.rot90(picture, turns)))
        places = face.five
        for _ in range(turns):
            places = np.stack([512 - places[:, 1], places[:, 0]], axis=1)
        assert places == pytest.approx(upright.five, abs=3)
        pose = detector.pose(face)
        roll = pose.yaw_pitch_roll_deg[2] - detector.pose(upright).yaw_pitch_roll_deg[2]
        assert (roll - 90 * turns + 180) % 360 - 180 == pytest.approx(0, abs=4)
        assert pose.yaw_pitch_roll_deg[:2] == pytest.approx(detector.pose(upright).yaw_pitch_roll_deg[:2], abs=4)


@pytest.mark.parametrize("size_px", [40, 60, 90, 200, 400])
def test_faces_of_all_sizes_are_found_in_a_large_photograph(detector: PhotoFaces, size_px: int) -> None:
    whole = on_ground(face_of(size_px), (133, 57), (1200, 1000))
    (face,) = clear(detector, whole)
    assert face.size_px == pytest.approx(size_px, rel=0.1)
    if size_px == 40:
        return  # a thirtieth of the picture's side: found upright only
    sideways = np.ascontiguousarray(np.rot90(whole))
    (face,) = clear(detector, sideways)
    assert face.size_px == pytest.approx(size_px, rel=0.1)


def test_a_small_face_in_a_panorama_is_found(detector: PhotoFaces) -> None:
    (face,) = clear(detector, on_ground(face_of(90), (3600, 150), (5000, 600)))
    assert face.five[0] == pytest.approx([3600 + 70, 150 + 69], abs=12)


def test_every_face_of_a_group_is_found_the_largest_first(detector: PhotoFaces) -> None:
    whole = on_ground(face_of(150), (40, 300), (1300, 900))
    for size_px, left in ((100, 460), (80, 760)):
        small = face_of(size_px)[:, ::-1]
        whole[200 : 200 + small.shape[0], left : left + small.shape[1]] = small
    lying = np.rot90(face_of(120))
    whole[500 : 500 + lying.shape[0], 900 : 900 + lying.shape[1]] = lying

    faces = clear(detector, whole)

    assert [face.size_px for face in faces] == pytest.approx([150, 120, 100, 80], rel=0.1)
    assert [round(face.box[0] / 100) for face in faces] == [1, 10, 5, 8]


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket", "brick", "text"])
def test_what_is_no_face_has_no_clear_face(detector: PhotoFaces, name: str) -> None:
    picture = getattr(data, name)()
    rgb = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    assert clear(detector, np.ascontiguousarray(rgb)) == []


def test_a_face_at_each_place_of_a_window_keeps_its_landmarks(detector: PhotoFaces) -> None:
    """Windows overlap by half: a face across the border of two is found whole in the one between them."""
    offsets = [(place, 200) for place in range(100, 420, 64)]
    eyes = []
    for left, top in offsets:
        (face,) = clear(detector, on_ground(face_of(60), (left, top), (800, 600)))
        eyes.append(face.five[0] - [left, top])
    assert np.ptp(eyes, axis=0).max() < 2


def test_threads_that_share_a_detector_find_what_each_finds_alone(detector: PhotoFaces) -> None:
    pictures = [face_of(size_px) for size_px in (90, 120, 160)]
    alone = [detector.find(picture)[0].points for picture in pictures]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda picture: detector.find(picture)[0].points, pictures * 5))
    assert all((one == other).all() for one, other in zip(together, alone * 5, strict=True))


def test_windows_cover_a_level_and_a_panorama_is_searched_along_its_side() -> None:
    corners = blazeface.windows(300, 128)
    assert [tuple(corner) for corner in corners] == [(0, 0), (64, 0), (128, 0), (172, 0)]
    wide = blazeface.pyramid(np.zeros((500, 4000, 3), np.uint8))
    assert [level.shape[:2] for level in wide] == [(128, 1024), (256, 2048), (512, 4096)][: len(wide)]
    assert len(wide) == 2, "no level is larger than the picture"
    small = blazeface.pyramid(np.zeros((40, 30, 3), np.uint8))
    assert [level.shape[:2] for level in small] == [(128, 96)]


def test_the_fit_by_all_points_differs_from_that_by_five(detector: PhotoFaces) -> None:
    (face,) = clear(detector, data.astronaut())
    assert not np.allclose(by_mesh(detector, face), by_five(detector, face), atol=0.01)
    pose = detector.pose(face)
    assert np.linalg.norm(pose.camera.reshape(-1)[[3, 7, 11]]) == pytest.approx(2.7)
    assert 0 < pose.residual < 0.03
