"""Frozen networks beside a student: the encoders of its prompts, the detector that aligns portraits."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data_catalog.config.settings import Settings
from data_catalog.samples.encoding import encode_json
from tasks.student.user_portrait import Detectors, find_detectors

if TYPE_CHECKING:
    from models.faces.mediapipe_faces import MediaPipeFaces
    from models.faces.photo_faces import PhotoFaces
    from models.judges.clip import Clip
    from models.three_d.mae import Mae
    from tasks.align import Detector

CLIP, MAE, LANDMARKS, PHOTOGRAPHS = "clip", "mae", "landmarks", "photographs"  # folders of an export
NO_DETECTOR = "No face is looked for: each picture's middle square counts as an aligned, frontal portrait"
HOW_TO_DETECT = {
    "embedded": "align.faces=reject looks for faces",
    "paper": "align.faces=reject looks for faces, with the detector that configs/models.yaml names at paper.landmarks",
}

log = logging.getLogger(__name__)


class Companions(NamedTuple):
    """Frozen networks, on the CPU: each runs once for a prompt or a portrait."""

    clip: Clip
    mae: Mae | None  # None in the export of a student that has its own
    landmarks: Detector | None  # None where no detector knows the faces: portraits then count as aligned
    photographs: PhotoFaces | None = None  # as in `Detectors`

    @property
    def detectors(self) -> Detectors:
        return Detectors(self.landmarks, self.photographs)


def find_companions(settings: Settings) -> Companions:
    """Return the networks that the registry names for the settings' world."""
    from models.zoo import zoo

    return Companions(zoo.load("clip", settings.world), zoo.load("mae", settings.world), *find_detectors(settings))


def tell_without(detector: Detector | None, settings: Settings) -> None:
    """Say on the screen what happens to pictures where there is no detector."""
    if detector is None:
        log.warning("%s. %s", NO_DETECTOR, HOW_TO_DETECT[settings.world])


def save_companions(companions: Companions, folder: Path) -> None:
    """Save each network in its folder: CLIP in transformers' layout, the others as safetensors with their sizes.

    A detector of photographs is the files that it was loaded from.
    """
    from safetensors.torch import save_file

    from models.faces.landmarks import LandmarkNet

    companions.clip.model.save_pretrained(folder / CLIP)
    companions.clip.tokenizer.save_pretrained(folder / CLIP)
    if companions.mae is not None:
        (folder / MAE).mkdir()
        encoder = companions.mae.encoder
        save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, folder / MAE / _WEIGHTS)
        (folder / MAE / _CONFIG).write_bytes(encode_json(encoder.config.to_dict()))
    if companions.photographs is not None:
        _copy(companions.photographs, folder / PHOTOGRAPHS)
    detector = companions.landmarks
    if detector is None:
        return
    (folder / LANDMARKS).mkdir()
    if isinstance(detector, LandmarkNet):
        state = {name: value.contiguous() for name, value in detector.state_dict().items()}
        save_file(state, folder / LANDMARKS / _WEIGHTS)
    else:
        _copy(detector, folder / LANDMARKS)


def _copy(detector: PhotoFaces | MediaPipeFaces, folder: Path) -> None:
    """Copy the files that a detector of photographs was loaded from."""
    assert detector.path is not None
    if detector.path.is_dir():
        shutil.copytree(detector.path, folder, dirs_exist_ok=True)
    else:
        shutil.copyfile(detector.path, folder / _TASK)


def load_companions(folder: Path) -> Companions:
    """Load the networks that `save_companions` wrote."""
    from safetensors.torch import load_file

    from models.faces.photo_faces import MESH, PhotoFaces
    from models.judges.clip import Clip
    from models.three_d.mae import Mae

    mae = None
    if (folder / MAE / _WEIGHTS).is_file():
        config = json.loads((folder / MAE / _CONFIG).read_text(encoding="utf-8"))
        mae = Mae.from_state(config, load_file(folder / MAE / _WEIGHTS))
    photographs = PhotoFaces(folder / PHOTOGRAPHS) if (folder / PHOTOGRAPHS / MESH).is_file() else None
    return Companions(Clip.load(folder / CLIP), mae, _load_detector(folder / LANDMARKS), photographs)


def _load_detector(folder: Path) -> Detector | None:
    """The detector of an export. MediaPipe's needs its package: without it there is none, and the reason is said."""
    from safetensors.torch import load_file

    from models.checkpoints import WeightsError
    from models.faces.landmarks import LandmarkNet
    from models.faces.mediapipe_faces import MediaPipeFaces
    from models.faces.photo_faces import MESH, PhotoFaces

    if (folder / MESH).is_file():
        return PhotoFaces(folder)
    if (folder / _WEIGHTS).is_file():
        detector = LandmarkNet()
        detector.load_state_dict(load_file(folder / _WEIGHTS))
        return detector.eval().requires_grad_(False)
    if not (folder / _TASK).is_file():
        return None
    try:
        return MediaPipeFaces.load(folder / _TASK)
    except WeightsError as error:
        log.warning("%s", error)
        return None


_WEIGHTS, _CONFIG, _TASK = "model.safetensors", "config.json", "face_landmarker.task"
