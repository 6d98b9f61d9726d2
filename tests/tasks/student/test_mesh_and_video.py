"""Meshes and videos as files that other programs read."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import trimesh

from data_catalog.config.errors import UserError
from tasks.pictures.video import write_video
from tasks.student.mesh import extract_mesh, write_mesh

RADIUS, RED, BLUE = 0.3, (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def ball(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Red on the right and blue on the left; a speck floats beside it."""
    density = 20 - 40 * np.linalg.norm(points, axis=1) / RADIUS
    speck = 20 - 40 * np.linalg.norm(points - 0.4, axis=1) / 0.04
    return np.where(points[:, :1] > 0, RED, BLUE), np.maximum(np.maximum(density, speck) + 30, 0)


def test_a_ball_of_density_becomes_a_coloured_ball() -> None:
    mesh = extract_mesh(ball, level=10.0, resolution=48)
    assert mesh.is_watertight
    assert mesh.body_count == 1  # the speck is gone
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert np.abs(radii - RADIUS).max() < 1 / 48
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.03)  # positive: normals point outwards
    colours = mesh.visual.vertex_colors[:, :3] / 255
    right, left = mesh.vertices[:, 0] > 0.01, mesh.vertices[:, 0] < -0.01
    assert np.allclose(colours[right], RED)
    assert np.allclose(colours[left], BLUE)


def test_what_touches_the_box_is_closed_there() -> None:
    def wall(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(points), np.where(points[:, 1] < 0, 100.0, 0.0)

    mesh = extract_mesh(wall, level=10.0, resolution=24)
    assert mesh.is_watertight
    assert mesh.bounds[0] == pytest.approx([-0.5] * 3, abs=1 / 24)


def test_an_empty_box_is_a_message() -> None:
    with pytest.raises(UserError, match="the head has no surface"):
        extract_mesh(lambda points: (points, np.zeros(len(points))), level=1.0, resolution=8)


@pytest.mark.parametrize("name", ["head.ply", "head.glb", "head.obj"])
def test_a_written_mesh_keeps_shape_and_colours(name: str, tmp_path: Path) -> None:
    mesh = extract_mesh(ball, level=10.0, resolution=24)
    read = trimesh.load(write_mesh(tmp_path / name, mesh), force="mesh", process=False)
    assert read.faces.shape == mesh.faces.shape
    assert np.allclose(read.bounds, mesh.bounds, atol=1e-4)
    assert sorted(map(tuple, np.unique(read.visual.vertex_colors[:, :3], axis=0))) == [(0, 0, 255), (255, 0, 0)]
    with pytest.raises(UserError, match="cannot write a mesh named"):
        write_mesh(tmp_path / "head.stl", mesh)


def test_a_video_shows_every_frame_in_its_colours(tmp_path: Path) -> None:
    frames = [np.full((63, 65, 3), colour, np.uint8) for colour in ((200, 30, 30), (30, 200, 30), (30, 30, 200))]
    with av.open(str(write_video(tmp_path / "a.mp4", frames, fps=12))) as container:
        stream = container.streams.video[0]
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert (stream.codec_context.name, float(stream.average_rate or 0)) == ("h264", 12.0)
    assert len(shown) == 3
    for picture, frame in zip(shown, frames, strict=True):
        assert min(picture.shape[:2]) >= 256
        assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0
        assert np.abs(picture.mean(axis=(0, 1)) - frame[0, 0]).max() < 8


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((64, 64, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", broken())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="cannot write a video named"):
        write_video(tmp_path / "a.avi", [])
