"""The procedural world: what it renders is exact, repeatable, and changes only what a style says."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from models import camera, procedural
from models.faces import alignment
from models.three_d.rendering import sample_rays

SIZE = 48
FRONT = camera.orbit_label(0.0, 0.0)[0]
SIDE = camera.orbit_label(0.35, 0.1)[0]


def world_points(label: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    origins, directions = sample_rays(label[None], depth.shape[0])
    return (origins + directions * depth.reshape(1, -1, 1))[0]


def test_same_seed_same_bytes_and_another_seed_another_person() -> None:
    first, again, other = (procedural.render(procedural.portrait(seed), SIDE, SIZE).rgb for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.05)


def test_depth_agrees_between_two_cameras_where_both_see_the_surface() -> None:
    person = procedural.portrait(3)
    front, side = (procedural.render(person, label, SIZE) for label in (FRONT, SIDE))
    points = world_points(FRONT, front.depth)[front.mask.flatten()]
    seen = camera.project(points[None], SIDE[None])[0]
    pixel = (seen * SIZE).long().clamp(0, SIZE - 1)
    distance = (points - SIDE[:16].view(4, 4)[:3, 3]).norm(dim=-1)
    met = side.depth[pixel[:, 1], pixel[:, 0]]
    error = (met - distance)[torch.isfinite(met)].abs()
    assert float(error.quantile(0.5)) < 0.01  # half a pixel of slope; hidden points are further off
    assert float((error < 0.03).float().mean()) > 0.75


def test_the_head_has_no_pinholes() -> None:
    for seed in range(12):
        person = procedural.portrait(seed)
        if person.identity.hair_style == "mohawk":
            continue  # air between its tufts is no pinhole
        mask = procedural.render(person, FRONT, SIZE).mask.numpy()
        labels, count = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
        holes = [int((labels == hole).sum()) for hole in range(1, count + 1)]
        assert min(holes, default=9) > 1, f"seed {seed}: single background pixels inside the head"


@pytest.mark.parametrize("style", ["bronze-statue", "marble-statue", "zombie", "pencil-sketch", "neon", "red-hair"])
def test_a_style_of_colour_keeps_the_depth_exactly(style: str) -> None:
    plain, styled = procedural.render_styles(procedural.portrait(4), SIDE, SIZE, [None, style])
    assert torch.equal(plain.depth, styled.depth)
    assert float((plain.rgb - styled.rgb).abs().mean()) > 0.005


@pytest.mark.parametrize("style", ["clown", "elf-ears", "afro", "bald"])
def test_a_style_of_shape_changes_the_depth(style: str) -> None:
    plain, styled = procedural.render_styles(procedural.portrait(4), SIDE, SIZE, [None, style])
    assert not torch.equal(plain.mask, styled.mask) or not torch.equal(plain.depth, styled.depth)


def test_the_changed_mask_holds_every_difference() -> None:
    person = procedural.portrait(7)
    plain, styled = procedural.render_styles(person, FRONT, SIZE, [None, "red-hair"])
    outside = ~procedural.changed_mask(person, FRONT, SIZE, "red-hair")
    assert float((plain.rgb - styled.rgb).abs()[outside].max()) <= 4 / 255
    assert 0.01 < float((~outside).float().mean()) < 0.6


def test_the_nose_tip_lies_on_the_surface() -> None:
    for seed in (1, 2, 8):
        person = procedural.portrait(seed)
        tip = procedural.landmarks(person)[2]
        depth = procedural.render(person, FRONT, 257).depth
        x, y = (camera.project(tip[None, None], FRONT[None])[0, 0] * 257).long()
        expected = float((tip - FRONT[:16].view(4, 4)[:3, 3]).norm())
        assert float(depth[y, x]) == pytest.approx(expected, abs=0.012)


def test_the_scene_leaves_the_shape_alone() -> None:
    first, second = (procedural.render(procedural.portrait(9, scene), SIDE, SIZE) for scene in (1, 2))
    assert torch.equal(first.depth, second.depth)
    assert float((first.rgb - second.rgb).abs().mean()) > 0.02


def test_a_crop_of_a_raw_photograph_is_the_head_seen_by_its_effective_camera() -> None:
    photo = procedural.raw_photo(11)
    affine = alignment.crop_transform(photo.landmarks)
    label = torch.from_numpy(alignment.effective_camera(photo.label.numpy(), affine, (128, 128))).float()
    inverse = alignment.invert_affine(affine)
    centres = (np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1) + 0.5) / SIZE
    raw = alignment.apply_affine(inverse, centres) - 0.5  # array positions
    crop = np.stack(
        [ndimage.map_coordinates(photo.rgb[..., c] / 255, [raw[..., 1], raw[..., 0]], order=1) for c in range(3)], -1
    )
    rendered = procedural.render(photo.person, label, SIZE).rgb.numpy()
    inside = (raw.min(-1) > 1) & (raw.max(-1) < 126)
    assert np.abs(crop - rendered)[inside].mean() < 0.03


def test_an_unknown_style_is_named() -> None:
    with pytest.raises(ValueError, match="elf-ears"):
        procedural.render(procedural.portrait(0), FRONT, 16, "no-such-style")
