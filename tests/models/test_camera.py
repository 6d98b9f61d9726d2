import math

import pytest
import torch

from models import camera
from models.three_d.rendering import sample_rays


def test_the_frontal_camera_stands_on_the_z_axis_and_looks_at_the_face() -> None:
    cam2world = camera.look_at(0.0, 0.0)[0]
    expected = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]])
    assert torch.allclose(cam2world, expected, atol=1e-6)


def test_positive_yaw_moves_the_camera_to_positive_x() -> None:
    cam2world = camera.look_at(math.pi / 2, 0.0, radius=2.0, target=(0.0, 0.0, 0.0))[0]
    # At +x the camera looks along -x; its right is -z (away from the frontal viewer), its down is -y.
    expected = torch.tensor([[0.0, 0, -1, 2], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
    assert torch.allclose(cam2world, expected, atol=1e-6)


def test_positive_pitch_moves_the_camera_up() -> None:
    cam2world = camera.look_at(0.0, math.pi / 6, radius=2.0, target=(0.0, 0.0, 0.0))[0]
    half, root = 0.5, math.sqrt(3) / 2
    assert torch.allclose(cam2world[:3, 3], torch.tensor([0.0, 1.0, 2 * root]), atol=1e-6)
    assert torch.allclose(cam2world[:3, 2], torch.tensor([0.0, -half, -root]), atol=1e-6)
    assert torch.allclose(cam2world[:3, 1], torch.tensor([0.0, -root, half]), atol=1e-6)


def test_a_label_splits_into_what_it_was_made_of() -> None:
    cam2world = camera.look_at(torch.tensor([0.1, -0.2]), 0.05)
    intrinsics = camera.intrinsics(4.0, 0.45, 0.55)
    label = camera.camera_label(cam2world, intrinsics)
    assert label.shape == (2, camera.LABEL_SIZE)
    again, matrices = camera.split_label(label)
    assert torch.equal(again, cam2world)
    assert torch.equal(matrices, intrinsics.expand(2, 3, 3))


def test_the_target_lands_in_the_centre_and_neighbours_on_their_side() -> None:
    label = camera.orbit_label(torch.tensor([0.0, 0.4]), torch.tensor([0.0, -0.2]))
    points = torch.tensor([[0.0, 0.0, 0.2], [0.1, 0.0, 0.2], [0.0, 0.1, 0.2]])
    image = camera.project(points, label)
    assert torch.allclose(image[:, 0], torch.full((2, 2), 0.5), atol=1e-5)
    # Frontal, 0.1 to the side at distance 2.5 is 0.04 of the focal length.
    assert image[0, 1].tolist() == pytest.approx([0.5 + 0.04 * camera.FOCAL, 0.5], abs=1e-5)
    assert image[0, 2].tolist() == pytest.approx([0.5, 0.5 - 0.04 * camera.FOCAL], abs=1e-5)


def test_off_centre_intrinsics_shift_the_image() -> None:
    label = camera.camera_label(camera.look_at(0.0, 0.0), camera.intrinsics(camera.FOCAL, 0.6, 0.3))
    assert camera.project(torch.tensor([[0.0, 0.0, 0.0]]), label)[0, 0].tolist() == pytest.approx([0.6, 0.3])


def test_mirroring_a_label_turns_the_camera_to_the_other_side() -> None:
    left, right = camera.orbit_label(-0.3, 0.1), camera.orbit_label(0.3, 0.1)
    assert torch.allclose(camera.mirror_label(left), right, atol=1e-6)
    assert torch.equal(camera.mirror_label(camera.mirror_label(left)), left)


@pytest.mark.parametrize("cx", [0.5, 0.53])
def test_a_mirrored_camera_sees_the_mirrored_scene_as_the_mirrored_picture(cx: float) -> None:
    label = camera.camera_label(camera.look_at(0.4, -0.1), camera.intrinsics(4.0, cx, 0.48))
    mirrored, flip = camera.mirror_label(label), torch.tensor([-1.0, 1.0, 1.0])
    assert torch.equal(camera.mirror_label(mirrored), label)
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    places, others = camera.project(points, label), camera.project(points * flip, mirrored)
    assert torch.allclose(others, torch.tensor([1.0, 0.0]) + places * torch.tensor([-1.0, 1.0]), atol=1e-5)
    # A field in a mirror has the same value at x as the field at -x: rays of a row run in the other order.
    rays, turned = sample_rays(label, 8), sample_rays(mirrored, 8)
    for ours, theirs in zip(rays, turned, strict=True):
        assert torch.allclose(theirs.view(8, 8, 3), (ours * flip).view(8, 8, 3).flip(1), atol=1e-5)


def test_angles_of_a_label_are_those_that_it_was_made_of() -> None:
    yaw, pitch = camera.orbit_angles(camera.orbit_label(torch.tensor([0.3, -0.7]), torch.tensor([-0.2, 0.1])))
    assert torch.allclose(yaw, torch.tensor([0.3, -0.7]), atol=1e-6)
    assert torch.allclose(pitch, torch.tensor([-0.2, 0.1]), atol=1e-6)


def test_a_wider_view_has_a_shorter_focal_length_and_its_middle_moves() -> None:
    zero, yaw = torch.zeros(9), torch.linspace(-0.8, 0.8, 9)
    assert camera.varied_label(yaw, zero, zero, zero, zero).equal(camera.orbit_label(yaw, 0.0))
    label = camera.varied_label(yaw[:1], zero[:1], torch.tensor([2.4]), torch.tensor([0.1]), torch.tensor([-0.05]))
    own = camera.split_label(label)[1][0]
    # EG3D's code: 1 / (tan(fov * 3.14159 / 360) * 1.414), which is 4.2634 and not 4.2647 at 18.837 degrees.
    expected = 1 / (math.tan((18.837 + 2.4) * 3.14159 / 360) * 1.414)
    assert own.tolist() == [
        [pytest.approx(expected, rel=4e-4), 0.0, pytest.approx(0.6)],
        [0.0, pytest.approx(expected, rel=4e-4), pytest.approx(0.45)],
        [0.0, 0.0, 1.0],
    ]
