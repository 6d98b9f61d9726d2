"""The paper's judges: their published keys, what they see of a picture, and what a world may do without."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from data_catalog.config.settings import Settings
from models.camera import orbit_label
from models.faces.recognition import Recogniser
from models.judges import lpips_alex  # before torchvision, which beside a CPU-only torch needs its help
from models.judges.arcface import ArcFace
from models.zoo import zoo
from tasks.score import camera_drifts

# Of `model_ir_se50.pth`: a few keys with their shapes, and how many there are.
ARCFACE_KEYS = {
    "input_layer.0.weight": (64, 3, 3, 3),
    "input_layer.2.weight": (64,),
    "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1),
    "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
    "body.23.res_layer.3.weight": (512, 512, 3, 3),
    "output_layer.3.weight": (512, 25088),
    "output_layer.4.running_var": (512,),
}


@pytest.fixture(scope="module")
def arcface() -> ArcFace:
    torch.manual_seed(0)
    return ArcFace.from_state(ArcFace().state_dict())


def test_arcface_has_the_published_keys(arcface: ArcFace) -> None:
    state = arcface.state_dict()
    learned = [key for key in state if not key.endswith("num_batches_tracked")]
    assert {key: tuple(state[key].shape) for key in ARCFACE_KEYS} == ARCFACE_KEYS
    assert len(learned) == 343
    assert sum(parameter.numel() for parameter in arcface.parameters()) == 43_797_696


def test_arcface_sees_the_face_alone_whatever_the_size_of_the_picture(arcface: ArcFace) -> None:
    """Without a detector, by the camera; the frame around the face is not seen."""
    rng, camera = np.random.default_rng(0), orbit_label(torch.tensor([0.0, 0.0]), 0.0)
    blocks = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    framed = blocks.copy()
    framed[:7], framed[237:], framed[:, :13], framed[:, 241:] = 0, 255, 0, 255
    recogniser = Recogniser(arcface, world="paper")
    plain, same = recogniser.embed_seen(np.stack([blocks, framed]), camera)
    assert plain.shape == (512,)
    assert plain.equal(same)
    large = blocks.repeat(2, axis=0).repeat(2, axis=1)
    assert float(recogniser.embed_seen(large[None], camera[:1])[0] @ plain) > 0.999


def test_lpips_takes_alexnets_published_file() -> None:
    import torchvision

    torch.manual_seed(0)
    published = torchvision.models.AlexNet().state_dict()
    metric = lpips_alex.from_state(published)
    assert metric.name == "lpips_alex"
    assert metric.metric.net.slice3.get_submodule("6").weight.equal(published["features.6.weight"])
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert float(metric(picture, picture)) == 0
    assert float(metric(picture, -picture)) > 0
    with pytest.raises(KeyError, match=r"features\.8\.bias"):
        lpips_alex.from_state({key: value for key, value in published.items() if key != "features.8.bias"})


def test_what_is_optional_may_stay_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = tmp_path / "models.yaml"
    without = {"landmarks": {"path": None, "optional": True}, "teacher": {"path": None, "get": "ask its authors"}}
    registry.write_text(yaml.safe_dump({"paper": without}))
    monkeypatch.setenv("STILLROOM_MODELS", str(registry))
    assert zoo.digest("landmarks", "paper") == zoo.ABSENT
    assert zoo.load.__wrapped__("landmarks", "paper") is None
    with pytest.raises(zoo.WeightsError, match="ask its authors"):
        zoo.digest("teacher", "paper")
    with pytest.raises(zoo.WeightsError, match="has no mae for the world 'paper'"):
        zoo.digest("mae", "paper")
    # Without a detector nobody knows whether the camera moved, which is no proof that it did.
    assert camera_drifts(None, np.zeros((2, 8, 8, 3), np.uint8), [np.zeros(25)] * 2, Settings()) == [None, None]
