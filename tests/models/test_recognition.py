"""The place of a face when an identity network reads it."""

import numpy as np
import pytest
import torch

from models import procedural
from models.camera import orbit_label, project
from models.faces.alignment import STANDARD_FACE, apply_affine
from models.faces.pnp import OFFSET, UNIT
from models.faces.recognition import ARCFACE_TEMPLATE, Recogniser, cut_face, similarity
from models.judges.arcface import ArcFace
from models.judges.identity import IdentityNet
from models.pixels import signed, to_levels
from models.zoo import zoo


class Sure:
    """Detector that finds the same points in every picture."""

    def __init__(self, points: np.ndarray, confidence: float) -> None:
        self.points, self.confidence = points, confidence

    def detect(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(self.points[None], len(images), 0), np.full(len(images), self.confidence)


def dotted(point: np.ndarray, side: int) -> np.ndarray:
    """A black picture (side, side, 3) with one soft white dot, px."""
    x, y = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    dot = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 4.0**2))
    return np.repeat(to_levels(dot)[..., None], 3, axis=-1)


def find_dot(face: torch.Tensor) -> np.ndarray:
    """The centre (2,), px, of the dot in a face (1, 3, h, w)."""
    levels = (face[0, 0].numpy() + 1) / 2
    x, y = np.meshgrid(np.arange(levels.shape[1]) + 0.5, np.arange(levels.shape[0]) + 0.5)
    return np.array([(levels * x).sum(), (levels * y).sum()]) / levels.sum()


@pytest.mark.parametrize("turn_deg", [0.0, 25.0])
@pytest.mark.parametrize("scale", [2.4, 1.0])
def test_the_five_points_of_a_face_land_on_the_template_of_arcface(turn_deg: float, scale: float) -> None:
    turn = np.deg2rad(turn_deg)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (ARCFACE_TEMPLATE - 56) @ turned.T * scale + [270, 240]
    with torch.device("meta"):
        network = ArcFace()
    recogniser = Recogniser(network, world="paper")
    faces = [recogniser.cut(signed(dotted(point, 512)[None]), points / 512) for point in points]
    assert {face.shape for face in faces} == {(1, 3, 112, 112)}
    landed = np.array([find_dot(face) for face in faces])
    assert np.hypot(*(landed - ARCFACE_TEMPLATE).T).max() < 1.0


def test_the_standard_face_before_a_camera_of_eg3d_lies_on_the_template() -> None:
    face = torch.from_numpy(OFFSET + UNIT * STANDARD_FACE).float()
    points = project(face[None], orbit_label(0.0, 0.0))[0].double().numpy()
    recogniser = Recogniser(IdentityNet(), world="paper")
    assert recogniser.find(np.zeros((1, 8, 8, 3), np.uint8), orbit_label(0.0, 0.0))[0] == pytest.approx(points)
    landed = apply_affine(similarity(points * 512, ARCFACE_TEMPLATE), points * 512)
    off = np.hypot(*(landed - ARCFACE_TEMPLATE).T)
    assert off.mean() < 2.0  # faces differ; the window of FFHQ was 4.3 px off
    spread = [np.sqrt(((each - each.mean(axis=0)) ** 2).sum()) for each in (landed, ARCFACE_TEMPLATE)]
    assert spread[0] / spread[1] == pytest.approx(1.0, abs=0.02)  # it was 19 % too large


def test_a_face_is_never_mirrored_onto_the_template() -> None:
    mirrored = ARCFACE_TEMPLATE * [-1, 1] + [112, 0]
    linear = similarity(mirrored, ARCFACE_TEMPLATE)[:, :2]
    assert np.linalg.det(linear) > 0


def test_points_are_those_of_a_detector_that_is_sure_else_those_of_the_camera() -> None:
    labels = orbit_label(torch.tensor([0.0, 0.3]), 0.0)
    images, detected = np.zeros((2, 64, 64, 3), np.uint8), np.full((5, 2), 0.25)
    without = Recogniser(IdentityNet()).find(images, labels)
    sure, unsure = (Recogniser(IdentityNet(), Sure(detected, sure)).find(images, labels) for sure in (0.9, 0.1))  # type: ignore[arg-type]
    assert (sure == 0.25).all()
    assert (unsure == without).all()
    assert without[0, 2, 0] == pytest.approx(0.5, abs=0.01)
    assert without[1, 2, 0] != pytest.approx(0.5, abs=0.01)  # the nose of a turned head


def test_a_portrait_of_the_embedded_world_is_read_as_it_is_and_a_view_from_the_side_is_cut() -> None:
    network = zoo.load("identity", "embedded")
    recogniser, plain = zoo.load_recogniser("embedded"), Recogniser(network)
    rng = np.random.default_rng(0)
    same, cut = [], []
    for seed in range(5000, 5008):
        person = procedural.portrait(seed)
        labels = orbit_label(torch.tensor([0.0, float(rng.choice([-0.35, 0.35]))]), torch.tensor([0.0, 0.25]))
        front, side = (to_levels(procedural.render(person, label, 64).rgb.numpy()) for label in labels)
        faces = network.embed(np.stack([front, side]))
        same.append(float(faces[0] @ faces[1]))
        aligned = [each.embed_seen(np.stack([front, side]), labels) for each in (recogniser, plain)]
        cut.append([float(faces[0] @ each[1]) for each in aligned])
    assert (np.mean(cut, axis=0) > np.mean(same) + 0.03).all()
    whole = np.array([[1 / 64, 0, 0], [0, 1 / 64, 0.001]])
    assert cut_face(signed(front[None]), whole, 64).equal(signed(front[None]))
    assert not cut_face(signed(front[None]), whole + np.array([[0, 0, 0.01], [0, 0, 0]]), 64).equal(signed(front[None]))
