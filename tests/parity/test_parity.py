"""Our networks compute what the reference implementations compute, under weights and inputs that a seed defines."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models.camera import look_at
from models.three_d.rendering import RayOptions, sample_planes
from tests.parity.cameras import eg3d_look_at
from tests.parity.cases import BUILDERS, CASES, TOLERANCE, golden_files, relative_errors
from tests.parity.conftest import ERROR, OWN_GOLDENS
from tests.parity.golden import Golden, weights


def test_networks_compute_what_the_reference_computes(
    golden_file: Path, record_property: Callable[[str, object], None]
) -> None:
    errors = relative_errors(golden_file)
    record_property(ERROR, max(errors.values()))
    assert max(errors.values()) <= TOLERANCE, errors


def test_every_family_has_a_golden_case() -> None:
    assert {path.stem.rsplit("_", 1)[0] for path in golden_files(OWN_GOLDENS)} == set(CASES)


def test_a_changed_reference_is_told(tmp_path: Path) -> None:
    with np.load(OWN_GOLDENS / "ray_sampler_0.npz") as archive:
        content = dict(archive)
    name = next(name for name in content if name.startswith("out/") and name.endswith("/slice"))
    np.savez(tmp_path / "ray_sampler_0.npz", **{**content, name: content[name] * 1.001})
    assert max(relative_errors(tmp_path / "ray_sampler_0.npz").values()) > TOLERANCE


def test_an_unknown_case_is_refused(tmp_path: Path) -> None:
    with np.load(OWN_GOLDENS / "camera_0.npz") as archive:
        content = dict(archive)
    meta = json.loads(bytes(content["meta"])) | {"case": "lens_0"}
    np.savez(tmp_path / "lens_0.npz", **{**content, "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)})
    with pytest.raises(ValueError, match="unknown case 'lens_0'; known: camera, "):
        relative_errors(tmp_path / "lens_0.npz")


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_public_state_dicts_load_strictly(name: str) -> None:
    public = json.loads((OWN_GOLDENS.parent / "state_dict_shapes.json").read_text())[name]
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in BUILDERS[name]().state_dict().items()}
    assert ours == public


def test_a_wrong_third_plane_is_far_from_the_reference() -> None:
    golden = Golden.load(OWN_GOLDENS / "plane_sampling_0.npz")
    planes = torch.from_numpy(golden.normal("planes", (2, 3, 32, 64, 64))).flatten(1, 2)
    points = torch.from_numpy(golden.uniform("xyz", (2, 500, 3), -0.62, 0.62))
    right = sample_planes(planes, points, RayOptions())
    wrong = sample_planes(planes, points, RayOptions(proper_axes=True))
    assert float((right - wrong).square().mean().sqrt() / right.square().mean().sqrt()) > 0.1


def test_eg3d_angles_agree_with_ours_at_the_horizon() -> None:
    assert torch.allclose(eg3d_look_at(math.pi / 2 + 0.3, math.pi / 2), look_at(0.3, 0.0), atol=1e-6)


def test_fill_is_a_function_of_seed_and_key() -> None:
    shapes = {"a.weight": (2, 3), "b.bias": (4,), "x.resample_filter": (4, 4)}
    first, second = weights(shapes, 1), weights(shapes, 2)
    assert sorted(first) == ["a.weight", "b.bias"]
    assert np.array_equal(first["a.weight"], weights(shapes, 1)["a.weight"])
    assert not np.array_equal(first["a.weight"], second["a.weight"])
