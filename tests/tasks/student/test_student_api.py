"""The student from Python: what is computed once, what comes in, what goes out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from data_catalog.config.errors import UserError
from data_catalog.samples.colour import coded_space, to_srgb
from data_catalog.samples.encoding import encode_png
from models.camera import orbit_label, project
from models.three_d.student import Student as Network
from stillroom import Portrait3D, Student
from tasks.language.encoder import KNOWN
from tasks.student.user_portrait import read_picture
from tests.worlds import profiles, pupil


def test_the_triplane_is_computed_once_for_a_portrait_and_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, encoded = Network.encode, []

    def counted(self: Network, images: Tensor, tokens: Tensor, kind: str) -> Tensor:
        encoded.append(kind)
        return encode(self, images, tokens, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "encode", counted)
    student, first, second = pupil.student(), pupil.aligned_portrait(0), pupil.aligned_portrait(1)
    edited = student.edit(first, "make the hair red")
    views = [np.asarray(edited.render(yaw)) for yaw in (-0.3, 0.0, 0.3)]
    assert not np.array_equal(views[0], views[2])
    assert student.edit(first, "make the hair red").triplane is edited.triplane
    assert encoded == ["text"]
    other = student.edit(first, "as a zombie")
    assert not other.triplane.equal(edited.triplane)
    student.edit(second, "make the hair red")
    student.edit(first, reference=second)
    student.edit(first, reference=second)
    assert encoded == ["text", "text", "text", "image"]


def test_a_portrait_comes_as_path_bytes_picture_or_array(student: Student, tmp_path: Path) -> None:
    rgb = pupil.aligned_portrait()
    (tmp_path / "portrait.png").write_bytes(encode_png(rgb))
    expected = np.asarray(student.edit(rgb, "make the hair red").render(0.2, 0.1))
    for picture in (tmp_path / "portrait.png", str(tmp_path / "portrait.png"), encode_png(rgb), Image.fromarray(rgb)):
        assert np.array_equal(student.edit(picture, "make the hair red").render(0.2, 0.1), expected)


@pytest.mark.parametrize("kind", ["turned", "alpha", "16 bits", "profile"])
def test_a_picture_of_pillow_is_taken_as_its_file_is(student: Student, tmp_path: Path, kind: str) -> None:
    rgb, path, options = pupil.aligned_portrait(), tmp_path / "portrait.png", {}
    image = Image.fromarray(rgb)
    if kind == "turned":
        image, exif = image.transpose(Image.Transpose.ROTATE_90), Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise, back again
        options["exif"] = exif
    elif kind == "alpha":
        image.putalpha(Image.fromarray(np.where(np.arange(len(rgb)) < 9, 0, 255).astype(np.uint8)[None].repeat(64, 0)))
        rgb = np.where(np.arange(len(rgb))[:, None] < 9, 255, rgb).astype(np.uint8)
    elif kind == "16 bits":
        rgb = np.repeat(rgb[..., :1], 3, axis=2)
        image = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    else:
        options["icc_profile"] = profiles.screen(profiles.P3, None)
        rgb = to_srgb(rgb, coded_space(12, 13))
    image.save(path, **options)
    for picture in (path, path.read_bytes(), Image.open(path)):
        seen = read_picture(picture, student.settings)
        assert np.abs(seen.astype(int) - rgb).max() <= (2 if kind == "profile" else 0)
        assert np.array_equal(seen, read_picture(path, student.settings))


def test_only_a_portrait_that_is_not_aligned_is_cut(student: Student, tmp_path: Path) -> None:
    (photo,) = pupil.write_photos(tmp_path, 1)
    cut = student.align(photo)
    assert (cut.cropped, cut.camera_source, cut.rgb.shape) == (True, "pnp", (64, 64, 3))
    again = student.align(cut.rgb)
    assert (again.cropped, again.camera_source) == (False, "pnp")
    assert np.array_equal(again.rgb, cut.rgb)
    assert np.abs(again.camera - cut.camera).max() < 0.1


def test_mistakes_are_messages(student: Student, tmp_path: Path) -> None:
    rgb = pupil.aligned_portrait()
    with pytest.raises(UserError, match="the prompt is empty"):
        student.edit(rgb, "  ")
    for text in ("a \0 zombie", "a \udce9 zombie", "a \x1b[31m zombie"):
        with pytest.raises(UserError, match="the prompt is not plain text"):
            student.edit(rgb, text)
    with pytest.raises(UserError, match="either a text or a reference picture"):
        student.edit(rgb, "as a zombie", reference=rgb)
    with pytest.raises(UserError, match="cannot be taken as a portrait: not an image"):
        student.edit(b"no picture at all", "as a zombie")
    with pytest.raises(UserError, match="the picture cannot be taken as a portrait: HEIC is not read") as raised:
        student.edit(b"\0\0\0\x18ftypheic" + bytes(20), "as a zombie")
    assert raised.value.fields == {}
    assert "heif-convert" in str(raised.value.hint)
    with pytest.raises(UserError, match="the array is not a picture"):
        student.edit(rgb[..., 0], "as a zombie")
    for level in (0, 127, 255):
        nothing = np.full((90, 70, 3), level, np.uint8)
        with pytest.raises(UserError, match="the picture shows nothing") as raised:
            student.edit(nothing, "as a zombie")
        assert raised.value.fields["found"] == f"one colour, RGB {level}, {level}, {level}"
        with pytest.raises(UserError, match="the picture shows nothing"):
            student.edit(rgb, reference=Image.fromarray(nothing))
    with pytest.raises(UserError, match="there is no student here"):
        Student.load(tmp_path)


def test_a_prompt_that_is_cut_or_not_known_is_said_once_and_edits_all_the_same(
    student: Student, caplog: pytest.LogCaptureFixture
) -> None:
    rgb, long = pupil.aligned_portrait(), "turn him into a zombie " * 60
    with caplog.at_level("WARNING"):
        for _ in range(2):
            student.edit(rgb, "\n as a \t zombie")
            student.edit(rgb, "把他变成僵尸")
            student.edit(rgb, long)
            student.edit(rgb, "b" * 5000)
    told = [record.getMessage() for record in caplog.records]
    assert [place for place, message in enumerate(told) if message == KNOWN] == [
        1,
        len(told) - 1,
    ]  # what is known instead
    said = [message for message in told if message != KNOWN]
    assert said[0] == "the text encoder knows none of these words: 把他变成僵尸"
    assert said[1].startswith("the prompt is cut after 24 tokens, it has 302; not read: ")
    assert [message.partition(",")[0] for message in said[2:]] == [
        "the prompt is cut after 24 tokens",
        f"the text encoder knows none of these words: {'b' * 60}",
    ]


def test_depth_is_known_on_the_head_and_nowhere_else(head: Portrait3D) -> None:
    depth = head.depth()
    assert depth.shape == (32, 32)
    assert np.isnan(depth[0, 0])
    assert 2.0 < depth[16, 16] < 2.7  # the camera is 2.7 from the world's origin


def test_the_turntable_goes_to_both_sides_and_closes(head: Portrait3D) -> None:
    frames = [np.asarray(frame, dtype=float) for frame in head.turntable(8)]
    assert np.array_equal(frames[0], np.asarray(head.render(0.0, 0.15)))
    steps = [np.abs(a - b).mean() for a, b in zip(frames, frames[1:] + frames[:1], strict=True)]
    assert steps[-1] < 2 * np.median(steps)
    assert np.abs(frames[2] - frames[6]).mean() > np.median(steps)
    assert [len(list(head.views(count))) for count in (0, 1, 3)] == [0, 1, 3]


def test_the_mesh_is_the_surface_that_the_views_show(head: Portrait3D) -> None:
    import torch

    mesh, label, size = head.mesh(), orbit_label(0.3, 0.1), 32
    assert mesh.is_watertight
    assert mesh.volume > 0.01
    pixels = project(torch.tensor(mesh.vertices, dtype=torch.float32), label)[0].numpy() * size
    distance = np.linalg.norm(mesh.vertices - label[0, [3, 7, 11]].numpy(), axis=1)
    column, row = pixels.astype(int).T
    inside = (pixels >= 0).all(axis=1) & (pixels < size).all(axis=1)
    nearest = np.full((size, size), np.inf)
    np.minimum.at(nearest, (row[inside], column[inside]), distance[inside])
    depth = head.depth(0.3, 0.1)
    both = np.isfinite(nearest) & np.isfinite(depth)
    assert both.sum() > 0.9 * np.isfinite(depth).sum() > 100
    assert np.median(np.abs(nearest - depth)[both]) < 0.04
    # The colours too: of the face that looks at the camera.
    frontal = (mesh.vertices[:, 2] > 0.15) & (np.abs(mesh.vertices[:, :2]) < 0.1).all(axis=1)
    seen = np.asarray(head.render())[24:40, 24:40].mean(axis=(0, 1))
    assert np.abs(mesh.visual.vertex_colors[frontal, :3].mean(axis=0) - seen).max() < 40


def test_what_is_exported_is_the_same_student_without_the_project(student: Student, tmp_path: Path) -> None:
    student.save_pretrained(tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "README.md", "clip/model.safetensors", "mae/config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    again, rgb = Student.load(tmp_path / "out"), pupil.write_photos(tmp_path / "in", 1)[0]
    for wish in ({"prompt": "make the hair red"}, {"reference": pupil.aligned_portrait(1)}):
        expected = student.edit(rgb, **wish)  # type: ignore[arg-type]
        found = again.edit(rgb, **wish)  # type: ignore[arg-type]
        assert found.portrait.cropped
        assert found.triplane.equal(expected.triplane)
        assert np.array_equal(found.render(0.2), expected.render(0.2))
    config = (tmp_path / "out" / "config.json").read_text(encoding="utf-8")
    assert json.loads(config)["stillroom"]["world"] == "embedded"
    assert "/" not in config
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: stillroom\n")
    assert "| parameters |" in card


def test_encoders_that_learned_are_exported_loaded_and_read_every_prompt(tmp_path: Path) -> None:
    plain, learned = pupil.student(), pupil.student_with_encoders()
    rgb, wishes = pupil.aligned_portrait(), ({"prompt": "make the hair red"}, {"reference": pupil.aligned_portrait(1)})
    learned.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "mae").exists()  # the frozen one, which reads nothing
    again = Student.load(tmp_path / "out")
    for wish in wishes:
        found = learned.edit(rgb, **wish).triplane  # type: ignore[arg-type]
        assert found.equal(again.edit(rgb, **wish).triplane)  # type: ignore[arg-type]
        assert not found.allclose(plain.edit(rgb, **wish).triplane)  # type: ignore[arg-type]
        fast = pupil.student_with_encoders().speed_up().edit(rgb, **wish).triplane  # type: ignore[arg-type]
        assert (fast - found).abs().max() < 1e-3 * found.abs().max()


def test_the_fastest_form_edits_to_the_same_head(head: Portrait3D) -> None:
    fast = pupil.student().speed_up().edit(pupil.aligned_portrait(), "make the hair red")
    assert (fast.triplane - head.triplane).abs().max() < 1e-3 * head.triplane.abs().max()
    difference = np.asarray(fast.render(0.2), int) - np.asarray(head.render(0.2), int)
    assert np.abs(difference).max() <= 2
