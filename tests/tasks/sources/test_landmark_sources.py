"""Landmarks of any layout, reconstructions and detectors: EG3D's crop and cameras, joined by name, faults in words."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from data_catalog.config.errors import UserError
from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_png
from data_catalog.store.stage import Partition
from models.checkpoints import WeightsError
from models.faces import alignment, pnp
from models.faces.landmark_layouts import MEDIAPIPE, to_five
from models.faces.mediapipe_faces import MediaPipeFaces
from models.faces.reconstruction import DISTANCE, camera_pose, pose_label
from tasks import align
from tasks.sources.left_out import find_left_out
from tests.tasks.test_align import align_all, intake, project

FOCAL = 1015 / 102  # of Deep3DFaceRecon's camera: 1015 px where a unit has 102 px
ANGLES = [(0.0, 0.0, 0.0), (0.1, 0.4, 0.0), (-0.15, -0.5, 0.05), (0.05, 0.2, 0.4)]


def photographed(angles: Any, moved: Any, scale: float, centre: Any, roll: float = 0.0) -> np.ndarray:
    """The standard face as that camera sees it, px: (5, 2), y down."""
    x, y, z = angles
    turn_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    turn_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    turn_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    seen = alignment.STANDARD_FACE @ (np.array(turn_z) @ turn_y @ turn_x).T + moved
    flat = FOCAL * seen[:, :2] / (DISTANCE - seen[:, 2:]) * [1, -1]
    lean = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return scale * flat @ lean.T + centre


@pytest.mark.parametrize("angles", ANGLES)
def test_a_pose_shows_the_face_as_the_reconstruction_saw_it(angles: tuple[float, float, float]) -> None:
    """Before the location is rescaled, EG3D's camera of EG3D's face is the reconstruction's, at 7/3 units a side."""
    moved = np.array([0.02, -0.01, 0.3])
    label = np.concatenate(
        [camera_pose(angles, moved).ravel(), [alignment.FOCAL, 0, 0.5, 0, alignment.FOCAL, 0.5, 0, 0, 1]]
    )
    side = 2 * alignment.EG3D.half
    expected = photographed(angles, moved, 1 / side, [0.5, 0.5])
    assert np.abs(project(label, pnp.canonical_face("paper").mean) - expected).max() < 1e-4


def test_a_label_has_eg3ds_radius_and_intrinsics() -> None:
    pose = camera_pose((0.1, 0.3, 0.0), (0, 0, 0.5))
    label = pose_label(pose)
    assert np.linalg.norm(label[:16].reshape(4, 4)[:3, 3]) == pytest.approx(2.7)
    assert np.allclose(label[:16].reshape(4, 4)[:3, :3], pose[:3, :3])
    assert label[16:].tolist() == [4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]


@pytest.mark.parametrize("pose", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan), np.diag([1.0, 1, -1, 1])])
def test_what_is_no_pose_is_refused(pose: np.ndarray) -> None:
    with pytest.raises(ValueError):
        pose_label(pose)


@pytest.mark.parametrize("angles", ANGLES[:3])
def test_the_crop_is_seven_thirds_of_a_unit_about_the_faces_origin(angles: tuple[float, float, float]) -> None:
    """From far away, where the fit of the face is exact."""
    pose = camera_pose(angles, (0, 0, 0))
    to_camera = (pose[:3, :3] @ np.diag([1, -1, -1])).T
    turned = 100 * (alignment.STANDARD_FACE @ to_camera.T)[:, :2] * [1, -1] + [300, 400]
    inverse = alignment.invert_affine(alignment.crop_transform(turned, alignment.EG3D))
    assert alignment.apply_affine(inverse, [0.5, 0.5]) == pytest.approx([300, 400], abs=1e-6)
    assert np.hypot(*inverse[:, 0]) == pytest.approx(100 * 700 / 300, rel=1e-6)


def test_a_turned_head_stays_in_the_middle_of_its_crop() -> None:
    """FFHQ's rule follows the face's front: it lets a head turned by 35 degrees wander, EG3D's does not."""
    front, turned = (photographed((0, yaw, 0), np.zeros(3), 200, [300, 300]) for yaw in (0.0, 0.6))
    wander = {}
    for name, rule in (("eg3d", alignment.EG3D), ("ffhq", alignment.EMBEDDED)):
        centres = [
            alignment.apply_affine(alignment.invert_affine(alignment.crop_transform(points, rule)), [0.5, 0.5])
            for points in (front, turned)
        ]
        wander[name] = float(np.hypot(*(centres[1] - centres[0])))
    assert wander["eg3d"] < 4 < 12 < wander["ffhq"]


@pytest.mark.parametrize("angles", ANGLES)
def test_pnp_and_reconstruction_agree_on_a_standard_face(angles: tuple[float, float, float]) -> None:
    points = photographed(angles, np.zeros(3), 200, [300, 320])
    settings = load_settings("paper")
    by_points = align.fit_portrait(points, settings)
    rebuilt = align.use_reconstruction(camera_pose(angles, np.zeros(3)), points, (640, 640))
    assert np.allclose(by_points.crop, rebuilt.crop)
    first, second = (align.alignment.centred_rotation(found.camera) for found in (by_points, rebuilt))
    assert alignment.rotation_angle_deg(first, second) < 4
    assert by_points.reprojection is not None
    assert by_points.reprojection < 0.01


def test_a_crop_that_was_set_upright_turns_the_reconstructions_camera_with_it() -> None:
    angles = (0.1, 0.3, 0.0)
    points = photographed(angles, np.zeros(3), 200, [320, 320])
    upright = align.use_reconstruction(camera_pose(angles, np.zeros(3)), points, (640, 640))
    lean = 0.5
    pose = camera_pose(angles, np.zeros(3))
    turn = np.array([[np.cos(lean), -np.sin(lean), 0], [np.sin(lean), np.cos(lean), 0], [0, 0, 1]])
    pose[:3, :3] = pose[:3, :3] @ turn.T  # the photograph turned by `lean`, its camera the other way
    points = photographed(angles, np.zeros(3), 200, [320, 320], lean)
    leaning = align.use_reconstruction(pose, points, (640, 640))
    assert np.allclose(upright.camera, leaning.camera, atol=1e-6)


def points_as(count: int, five: np.ndarray) -> list[list[float]]:
    """A face of `count` points whose five are given; the others lie anywhere."""
    points = np.random.default_rng(0).uniform(0, 500, (count, 2))
    of_count: dict[int, Any] = {5: [[0], [1], [2], [3], [4]], 68: [[36, 39], [42, 45], [30], [48], [54]]}
    groups = of_count.get(count, MEDIAPIPE)
    for group, place in zip(groups, five, strict=True):
        spread = [[-8, 2], [8, -2]] if len(group) == 2 else [[0, 0]]
        points[list(group)] = place + np.array(spread)
    return points.tolist()


FIVE = np.array([[200.0, 210], [310, 208], [255, 262], [212, 330], [300, 331]])


@pytest.mark.parametrize("count", [5, 68, 468, 478])
def test_five_points_come_from_every_usual_layout(count: int) -> None:
    assert np.allclose(to_five(points_as(count, FIVE)), FIVE)
    with_depth = np.column_stack([points_as(count, FIVE), np.ones(count)])
    assert np.allclose(to_five(with_depth), FIVE)


@pytest.mark.parametrize("points", [np.zeros((6, 2)), np.zeros((5, 1)), np.zeros(5), np.full((5, 2), np.inf)])
def test_other_numbers_of_points_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"points x, y are expected|not a finite number"):
        to_five(points)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six noisy pictures; whose faces they show, the landmarks alone say."""
    (tmp_path / "photos").mkdir()
    for number in range(6):
        rgb = np.random.default_rng(number).integers(0, 256, (512, 512, 3), np.uint8)
        (tmp_path / "photos" / f"{number}.png").write_bytes(encode_png(rgb))
    return tmp_path / "photos"


def run(photos: Path, folder: Path, *overrides: str) -> Any:
    folder.mkdir(exist_ok=True)
    settings, made = intake(photos, folder / "portraits", "world=paper", *overrides)
    return align_all(settings, made, folder / "align")


def test_a_file_may_hold_any_layout_and_says_who_is_not_alone(photos: Path, tmp_path: Path) -> None:
    faces = {"0.png": points_as(68, FIVE), "1.png": points_as(478, FIVE), "2.png": [points_as(5, FIVE)]}
    faces |= {"3.png": [points_as(68, FIVE), points_as(68, FIVE + 20)], "4.png": [], "5.png": [[1, 2], [3, 4]]}
    (photos / "landmarks.json").write_text(json.dumps(faces))
    rows, summary = run(photos, tmp_path)
    for name in ("0.png", "1.png", "2.png"):
        assert np.allclose(np.reshape(rows[name]["landmarks"], (5, 2)), FIVE)
    assert summary.rejected == {"several faces": 1, "no face found": 1, "unusable landmarks": 1}
    assert rows["3.png"]["reason"] == "several faces: the landmark file has 2"
    assert "5, 68, 468, 478 points x, y are expected, got (2, 2)" in rows["5.png"]["reason"]


def test_text_files_may_lie_in_a_folder_of_their_own(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    several = np.concatenate([FIVE, FIVE + 30])
    for stem, points in {"0": FIVE, "1": points_as(68, FIVE), "2": several, "3": []}.items():
        (tmp_path / "points" / f"{stem}.txt").write_text("".join(f"{x} {y}\n" for x, y in points))
    rows, summary = run(photos, tmp_path, f"align.landmarks={tmp_path / 'points'}")
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"0.png", "1.png"}
    assert summary.rejected == {"several faces": 1, "no face found": 1, "no landmarks for this picture": 2}


def test_equal_names_in_two_folders_never_share_a_landmark_file(photos: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (photos / folder).mkdir()
        (photos / f"{'0' if folder == 'a' else '1'}.png").rename(photos / folder / "same.png")
    (tmp_path / "points" / "a").mkdir(parents=True)
    text = "".join(f"{x} {y}\n" for x, y in FIVE)
    for name in ("same", "a/same", "2"):
        (tmp_path / "points" / f"{name}.txt").write_text(text)
    rows, _ = run(photos, tmp_path, f"align.landmarks={tmp_path / 'points'}")
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"a/same.png", "2.png"}
    assert rows["b/same.png"]["reason"] == "no landmarks for this picture"


def reconstruct(folder: Path, stem: str, angles: Any, suffix: str = ".mat") -> None:
    result = {"angle": np.array([angles]), "trans": np.zeros((1, 3)), "id": np.zeros((1, 80))}
    if suffix == ".mat":
        scipy.io.savemat(folder / f"{stem}.mat", result)
    else:
        (folder / f"{stem}.json").write_text(json.dumps({name: value.tolist() for name, value in result.items()}))


def test_reconstructions_are_joined_by_name_and_each_fault_is_one_portraits(photos: Path, tmp_path: Path) -> None:
    results = tmp_path / "epoch_20_000000"
    results.mkdir()
    reconstruct(results, "0", ANGLES[1])
    reconstruct(results, "1", ANGLES[2], ".json")
    (results / "2.mat").write_bytes(b"MATLAB 5.0 but no more")
    (results / "3.json").write_text('{"angle": [0, 0, 0]}')
    reconstruct(results, "4", ANGLES[0])
    (photos / "landmarks.json").write_text(json.dumps({f"{n}.png": points_as(5, FIVE) for n in (0, 1, 2, 3, 5)}))
    rows, summary = run(photos, tmp_path, f"align.reconstructions={results}")
    for name, angles in (("0.png", ANGLES[1]), ("1.png", ANGLES[2])):
        crop = np.reshape(rows[name]["crop"], (2, 3))
        assert np.allclose(rows[name]["camera"], pose_label(camera_pose(angles, np.zeros(3)), crop))
        assert rows[name]["camera_source"] == "reconstruction"
    assert summary.rejected == {
        "unusable reconstruction": 2, "no landmarks for this picture": 1, "no reconstruction for this picture": 1
    }  # fmt: skip
    assert "3.json: angle and trans, or coeff, are expected, found angle" in rows["3.png"]["reason"]


def test_eg3ds_cameras_belong_to_pictures_that_are_cropped_already(photos: Path, tmp_path: Path) -> None:
    poses = {f"{n}.jpg": {"pose": camera_pose(ANGLES[n], np.zeros(3)).tolist(), "intrinsics": []} for n in (2, 1, 0)}
    (tmp_path / "cameras.json").write_text(json.dumps(poses))
    rows, summary = run(photos, tmp_path, f"align.reconstructions={tmp_path / 'cameras.json'}")
    assert summary.samples == 3
    for number in range(3):
        assert np.allclose(rows[f"{number}.png"]["camera"], pose_label(camera_pose(ANGLES[number], np.zeros(3))))
        assert np.allclose(rows[f"{number}.png"]["crop"], [1 / 512, 0, 0, 0, 1 / 512, 0])


def test_faults_of_the_files_as_a_whole_are_the_users_to_mend(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"align\.reconstructions: there is no"):
        run(photos, tmp_path / "a", f"align.reconstructions={tmp_path / 'nowhere'}")
    (tmp_path / "cameras.json").write_text('{"0.png": {"intrinsics": []}}')
    with pytest.raises(UserError, match="cannot be read"):
        run(photos, tmp_path / "b", f"align.reconstructions={tmp_path / 'cameras.json'}")


def shares(points: np.ndarray) -> np.ndarray:
    return points / 512


MISTAKES = {
    "shares of the picture": (shares, "points in pixels are expected: found x 0.39 to 0.61, y 0.41 to 0.65"),
    "from -1 to 1": (lambda points: points / 256 - 1, "points in pixels are expected: found x -0.22"),
    "a small copy": (lambda points: points / 16, "too small a face: a crop of about 19 px, portraits.min_side=32"),
    "a large copy": (lambda points: points * 4, "landmarks lie outside the picture: the picture has 512x512 px"),
    "y, x": (lambda points: points[:, ::-1], "x and y of the landmarks are exchanged"),
    "y up": (lambda points: points * [1, -1] + [0, 512], "y of the landmarks points up"),
    "left of the person": (lambda points: points[[1, 0, 2, 4, 3]], "left and right of the landmarks are exchanged"),
    "not a number": (lambda points: points * [np.nan, 1], "unusable landmarks: a landmark is not a finite number"),
    "four points": (lambda points: points[:4], "unusable landmarks: 5, 68, 468, 478 points x, y are expected"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
@pytest.mark.parametrize("count", [5, 68])
def test_each_mistake_is_rejected_by_its_own_reason(mistake: str, count: int, photos: Path, tmp_path: Path) -> None:
    change, reason = MISTAKES[mistake]
    points: Any = change(np.array(points_as(count, FIVE)) if count != 5 else FIVE)
    if mistake == "left of the person" and count == 68:
        points = points_as(68, FIVE[[1, 0, 2, 4, 3]])
    if mistake == "four points":
        points = points[:4]
    good = points_as(count, FIVE)
    (photos / "landmarks.json").write_text(json.dumps({"0.png": np.asarray(points).tolist(), "1.png": good}))
    rows, _ = run(photos, tmp_path)
    assert rows["0.png"]["reason"].startswith(reason)
    assert rows["1.png"]["status"] == "ok"


@pytest.mark.parametrize("lean", [0.0, 0.8, np.pi, -2.0])
def test_a_leaning_or_upside_down_face_is_none_of_these(lean: float, photos: Path, tmp_path: Path) -> None:
    turn = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    turned = (FIVE - 256) @ turn.T + 256
    (photos / "landmarks.json").write_text(json.dumps({"0.png": turned.tolist()}))
    rows, _ = run(photos, tmp_path)
    assert np.allclose(np.reshape(rows["0.png"]["landmarks"], (5, 2)), turned)


WRITTEN = {
    "utf-8": json.dumps({"0.png": FIVE.tolist()}).encode(),
    "bom": json.dumps({"0.png": FIVE.tolist()}).encode("utf-8-sig"),
    "utf-16": json.dumps({"0.png": FIVE.tolist()}).encode("utf-16"),
    "without suffix": json.dumps({"0": FIVE.tolist()}).encode(),
    "backslashes": json.dumps({".\\photos\\0.PNG": FIVE.tolist()}).encode(),
    "x and y": json.dumps({"0.png": [{"x": x, "y": y} for x, y in FIVE]}).encode(),
    "x, y, z in a list of faces": json.dumps({"0.png": [[{"x": x, "y": y, "z": 0.1} for x, y in FIVE]]}).encode(),
}


@pytest.mark.parametrize("way", list(WRITTEN))
def test_a_file_may_be_written_in_any_of_these_ways(way: str, photos: Path, tmp_path: Path) -> None:
    (photos / "landmarks.json").write_bytes(WRITTEN[way])
    rows, summary = run(photos, tmp_path)
    assert np.allclose(np.reshape(rows["0.png"]["landmarks"], (5, 2)), FIVE)
    assert summary.rejected == {"no landmarks for this picture": 5}


@pytest.mark.parametrize(("encoding", "comma"), [("utf-8", " "), ("utf-8-sig", ","), ("utf-16", "\t")])
def test_text_files_of_windows_are_read(encoding: str, comma: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    text = "".join(f"{x}{comma}{y}\r\n" for x, y in FIVE)
    (tmp_path / "points" / "0.png.TXT").write_bytes(text.encode(encoding))
    rows, _ = run(photos, tmp_path, f"align.landmarks={tmp_path / 'points'}")
    assert np.allclose(np.reshape(rows["0.png"]["landmarks"], (5, 2)), FIVE)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"keypoints": [[1, 2]]}, "unusable landmarks: a list of points x, y is expected, found keypoints"),
        ([{"u": 1, "v": 2}], "unusable landmarks: points need x and y"),
        ([["a", "b"]] * 5, "unusable landmarks: points of two numbers x, y are expected"),
        ([[1, 2], [3]], "unusable landmarks: points of two numbers x, y are expected"),
        (7, "unusable landmarks: 5, 68, 468, 478 points x, y are expected"),
        (None, "no face found: the landmark file has none"),
    ],
)
def test_what_is_no_face_is_said_in_words(value: Any, reason: str, photos: Path, tmp_path: Path) -> None:
    (photos / "landmarks.json").write_text(json.dumps({"0.png": value, "1.png": FIVE.tolist()}))
    rows, _ = run(photos, tmp_path)
    assert rows["0.png"]["reason"].startswith(reason)


@pytest.mark.parametrize("text", ["[]", '"no"', "{", "\xff"])
def test_a_file_that_is_no_object_fails_the_plan(text: str, photos: Path) -> None:
    (photos / "landmarks.json").write_bytes(text.encode("latin-1"))
    settings = load_settings("paper", [f"portraits.source={photos}"])
    with pytest.raises(UserError, match=r"landmark file .* cannot be read"):
        align.reads(settings, Partition("align", None, 0))


@pytest.mark.parametrize("given", ["landmarks.json", "points", "results", "cameras.json"])
def test_names_that_join_with_no_picture_fail_the_plan_and_some_are_said(
    given: str, photos: Path, tmp_path: Path
) -> None:
    def write(*stems: str) -> None:
        path.unlink(missing_ok=True) if path.suffix else path.mkdir(exist_ok=True)
        for stem in stems:
            if given == "points":
                (path / f"{stem}.txt").write_text("".join(f"{x} {y}\n" for x, y in FIVE))
            elif given == "results":
                reconstruct(path, stem, ANGLES[1])
        pose = {"pose": camera_pose(ANGLES[1], np.zeros(3)).tolist()}
        value: Any = pose if given == "cameras.json" else FIVE.tolist()
        if path.suffix:
            path.write_text(json.dumps({f"{stem}.png": value for stem in stems}))

    path = tmp_path / given
    what = "reconstructions" if given in ("results", "cameras.json") else "landmarks"
    settings = load_settings("paper", [f"portraits.source={photos}", f"align.{what}={path}"])
    write("a", "b")
    with pytest.raises(UserError, match=r"0 of 2 (face|camera|landmark file|reconstruction)s.* name a picture here"):
        align.sources(settings, Partition("align", None, 0))
    write("0", "1", "other")
    said = [each.said for each in find_left_out(settings)]
    assert said[0].startswith(("1 of ", "3 of "))
    assert "no picture here" in said[0]
    assert said[1].startswith("4 of 6 pictures without")


def test_coefficients_of_the_tensorflow_code_are_read(photos: Path, tmp_path: Path) -> None:
    results = tmp_path / "coefficients"
    results.mkdir()
    vector = np.random.default_rng(0).normal(size=(1, 257))
    vector[0, 224:227], vector[0, 254:257] = ANGLES[1], (0.0, 0.02, -0.1)
    scipy.io.savemat(results / "0.mat", {"coeff": vector, "lm_5p": np.zeros((5, 2))})
    rows, _ = run(photos, tmp_path, f"align.reconstructions={results}")
    assert np.allclose(rows["0.png"]["camera"], pose_label(camera_pose(ANGLES[1], (0.0, 0.02, -0.1))))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"angle": [[3.0, 170.0, 2.0]], "trans": [[0, 0, 0]]}, "angles in radians are expected, found 170: degrees?"),
        ({"id": [[1.0]], "exp": [[1.0]]}, "angle and trans, or coeff, are expected, found id, exp"),
        ({"coeff": np.zeros((3, 257))}, "coeff of one face, 257 numbers, is expected, found 771"),
        ({"angle": [[0.0, np.nan, 0.0]], "trans": [[0, 0, 0]]}, "three finite angles and a finite place are expected"),
        ({"angle": [[0.0, 0.0]], "trans": [[0, 0, 0]]}, "three finite angles and a finite place are expected"),
        ({"angle": [[0.0, 2.9, 0.0]], "trans": [[0, 0, 0]]}, "it stands behind the head"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 100, "MATLAB 7.3 is not read: save it with -v7"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "MATLAB 7.3 is not read: save it with -v7"),
    ],
)
def test_a_reconstruction_that_cannot_be_used_says_what_was_expected(
    content: Any, reason: str, photos: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    if isinstance(content, bytes):
        (results / "0.mat").write_bytes(content)
    else:
        scipy.io.savemat(results / "0.mat", content)
    reconstruct(results, "1", ANGLES[0])
    rows, summary = run(photos, tmp_path, f"align.reconstructions={results}")
    assert reason in rows["0.png"]["reason"]
    assert summary.rejected["unusable reconstruction"] == 1
    assert rows["1.png"]["status"] == "ok"


class Landmarker:
    """Stand-in for the results of MediaPipe's package: faces of one point list each."""

    def __init__(self, *faces: np.ndarray) -> None:
        self.found = [np.array(face) for face in faces]

    def faces(self, rgb: np.ndarray) -> list[np.ndarray]:
        return self.found


def test_a_detector_finds_one_face_or_says_why_not() -> None:
    settings: Settings = load_settings("paper")
    rgb, face = np.zeros((512, 512, 3), np.uint8), np.array(points_as(478, FIVE))
    found: Any = Landmarker(face)
    assert np.allclose(align.detect(found, rgb, settings), FIVE)
    for detector, reason in ((Landmarker(), "no face found"), (Landmarker(face, face), "several faces: 2 were found")):
        missing: Any = detector
        with pytest.raises(align.Unusable, match=reason):
            align.detect(missing, rgb, settings)


def test_the_largest_face_counts_where_a_score_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = np.array(points_as(478, FIVE)), np.array(points_as(478, FIVE)) / 4
    faces = MediaPipeFaces(None)
    monkeypatch.setattr(faces, "faces", lambda rgb: [small, large] if rgb.any() else [])
    images = np.stack([np.full((512, 512, 3), 9, np.uint8), np.zeros((512, 512, 3), np.uint8)])
    points, sure = faces.detect(images)
    assert sure.tolist() == [1.0, 0.0]
    assert np.allclose(points[0] * 512, FIVE)


def test_without_the_package_it_is_said_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", None)
    with pytest.raises(WeightsError, match=r"pip install mediapipe"):
        MediaPipeFaces.load(tmp_path / "face_landmarker.task")
