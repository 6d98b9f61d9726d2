"""Photographs in the paper's world: the face is found as by the stage align, or it is said that nothing finds it."""

import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from data_catalog.config.profiles import load_settings
from data_catalog.config.settings import Settings
from flows.cli.students import show_edit
from flows.page.inputs import tell_alignment, warn_of
from models.faces.landmark_layouts import MEDIAPIPE
from models.zoo import zoo
from tasks import align
from tasks.adaptation import folder as own_pairs
from tasks.student.companions import NO_DETECTOR, Companions, find_companions, load_companions, save_companions
from tasks.student.user_portrait import Detectors, Portrait, align_picture, find_detectors
from tasks.training.student_files import save_student
from tasks.video.source import open_clip
from tasks.video.track import track
from tests.worlds import pupil
from tests.worlds.clips import write_clip

# A frontal face, px of a picture of 640x360: eyes, nose tip, mouth corners.
FIVE = np.array([[400.0, 120.0], [440.0, 120.0], [420.0, 145.0], [404.0, 165.0], [436.0, 165.0]])


def install_mediapipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the place of MediaPipe: its landmarker needs a model file and finds `FIVE` in every picture."""
    points = np.zeros((478, 2))
    for five, group in zip(FIVE, MEDIAPIPE, strict=True):
        points[list(group)] = five

    class FaceLandmarker:
        @classmethod
        def create_from_options(cls, options: Any) -> "FaceLandmarker":
            if not Path(options["base_options"]).read_bytes().startswith(b"model"):
                raise ValueError("no model")
            return cls()

        def detect(self, picture: np.ndarray) -> Any:
            size = np.array([picture.shape[1], picture.shape[0]])
            return SimpleNamespace(face_landmarks=[[SimpleNamespace(x=x, y=y) for x, y in points / size]])

    vision = SimpleNamespace(
        FaceLandmarkerOptions=lambda **options: options,
        FaceLandmarker=FaceLandmarker,
        RunningMode=SimpleNamespace(IMAGE=0),
    )
    python, package, tasks = (ModuleType(name) for name in ("mediapipe.tasks.python", "mediapipe", "mediapipe.tasks"))
    python.BaseOptions = lambda model_asset_path: model_asset_path  # type: ignore[attr-defined]
    python.vision = vision  # type: ignore[attr-defined]
    package.Image = lambda image_format, data: data  # type: ignore[attr-defined]
    package.ImageFormat = SimpleNamespace(SRGB=0)  # type: ignore[attr-defined]
    for module in (package, tasks, python):
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Settings]:
    """The paper profile with MediaPipe's model in the registry, at the sizes of the embedded student."""
    install_mediapipe(monkeypatch)
    (tmp_path / "face.task").write_bytes(b"model of the landmarker")
    registry = tmp_path / "models.yaml"
    entries = yaml.safe_load(zoo.REGISTRY.read_text(encoding="utf-8"))
    entries["paper"]["landmarks"]["path"] = str(tmp_path / "face.task")
    registry.write_text(yaml.safe_dump(entries), encoding="utf-8")
    monkeypatch.setenv("STILLROOM_MODELS", str(registry))
    zoo.load.cache_clear()
    yield load_settings("paper", ["run.device=cpu", "align.size=64"])
    zoo.load.cache_clear()


def photograph() -> np.ndarray:
    """(360, 640, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)


def test_a_photograph_is_cut_where_the_registry_s_detector_finds_the_face(paper: Settings) -> None:
    found = align_picture(photograph(), find_detectors(paper), paper)
    assert (found.camera_source, found.cropped) == ("pnp", True)
    expected = align.fit_portrait(FIVE, paper)
    assert np.allclose(found.camera, expected.camera)
    middle = align_picture(photograph(), Detectors(None), paper)
    assert middle.camera_source == "assumed_frontal"
    assert not np.array_equal(found.rgb, middle.rgb)


def test_own_pairs_and_videos_ask_the_same_detector(paper: Settings, tmp_path: Path) -> None:
    from data_catalog.samples.encoding import encode_png

    for side in ("input", "edited"):
        (tmp_path / "pairs" / side).mkdir(parents=True)
        for name in range(3):
            picture = np.roll(photograph(), name, axis=0)
            (tmp_path / "pairs" / side / f"{name}.png").write_bytes(encode_png(picture))
    book = {
        "style": "glow",
        **{split: [{"text": f"{split} it", "number": n}] for n, split in enumerate(("train", "test"))},
    }
    pairs = own_pairs.align_pairs(own_pairs.find_pairs(tmp_path / "pairs"), book, paper)
    assert {pair.row.camera_source for pair in pairs} == {"pnp"}
    clip = open_clip(write_clip(tmp_path / "clip.mp4", [photograph()] * 2), 10**7)
    seen = track(clip, align.find_detector(paper), paper, tmp_path / "track.jsonl")
    assert all(sighting.points == pytest.approx(FIVE, abs=0.01) for sighting in seen)


def test_an_export_carries_the_detector_s_model_and_finds_the_same_face(
    paper: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = find_companions(Settings())
    (tmp_path / "out").mkdir()
    save_companions(Companions(small.clip, small.mae, align.find_detector(paper)), tmp_path / "out")
    assert (tmp_path / "out" / "landmarks" / "face_landmarker.task").read_bytes() == b"model of the landmarker"
    (tmp_path / "face.task").unlink()  # the export needs nothing of the machine that wrote it
    again = load_companions(tmp_path / "out").detectors
    assert align_picture(photograph(), again, paper).camera_source == "pnp"
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python", None)
    assert load_companions(tmp_path / "out").landmarks is None
    assert "pip install mediapipe" in caplog.text


def test_a_student_without_a_detector_says_so_when_it_is_loaded_and_when_it_has_edited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_catalog.workspace import Workspace
    from tasks.student.api import Student

    monkeypatch.setenv("STILLROOM_DATA", str(tmp_path / "data"))
    save_student(pupil.network(), tmp_path)
    with caplog.at_level(logging.WARNING):
        Student.from_workspace(Workspace.open("demo"), tmp_path)
        assert NO_DETECTOR not in caplog.text
        own = Workspace.open("demo", [f"portraits.source={tmp_path}", "align.faces=aligned"])
        assert Student.from_workspace(own, tmp_path).companions.landmarks is None
    assert NO_DETECTOR in caplog.text
    portrait = Portrait(photograph(), np.zeros(25), "assumed_frontal", True)
    assert tell_alignment(portrait, detects=False).startswith(NO_DETECTOR)
    assert "No face was found" in warn_of(portrait, detects=True)
    posed = portrait._replace(camera_source="pnp")
    assert warn_of(posed, detects=True) == ""
    assert "know procedural heads only" in warn_of(posed._replace(strange=True), detects=True)
    document: dict[str, Any] = {"files": [], "rejected": [], "style": None, "student": "s", "detects": False}
    document |= dict.fromkeys(("portraits", "aligned_here", "seconds", "seconds_triplane", "seconds_view"), 1)
    screen = io.StringIO()
    show_edit({**document, "camera_source": "assumed_frontal"}, Console(file=screen, width=120))
    assert "assumed_frontal, for there is no face detector" in screen.getvalue()
