"""Measures of flicker; steadying removes it and keeps speech."""

import numpy as np
import pytest
import torch

from benchmarks.flicker import error, motion, sharpness, tremor, warp_error
from tasks.video.flicker import REACH, steady
from tests.worlds import clips

SECONDS = np.arange(2 * REACH + 1) / 24


def noisy(clip: list[np.ndarray], sigma: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    # Blotches, as an encoder's errors are, not single pixels.
    blotches = [np.kron(rng.normal(0, sigma, (16, 16, 3)), np.ones((8, 8, 1))) for _ in clip]
    return [np.uint8(np.clip(a + b, 0, 255)) for a, b in zip(clip, blotches, strict=True)]


def test_what_moves_with_its_input_does_not_flicker_and_what_trembles_does() -> None:
    given = clips.moving_face(4)
    recoloured = [255 - picture for picture in given]
    assert warp_error(given, recoloured) < 1.5
    assert warp_error(given, noisy(recoloured, 8)) > 4
    assert warp_error(given, [recoloured[0]] * 4) > warp_error(given, recoloured)  # it stays where its input moves


def test_against_the_truth_tremor_is_what_stands_still_there_and_motion_what_does_not() -> None:
    truth = [np.full((32, 32, 3), 100, np.uint8) for _ in range(6)]
    for number, picture in enumerate(truth):
        picture[8:16, 8:16] += 20 * (number % 3)  # a mouth
    duller = [np.uint8(60 + 0.4 * picture) for picture in truth]
    assert motion(truth, truth) == pytest.approx(1.0)
    assert motion(duller, truth) == pytest.approx(0.4, abs=0.01)
    assert motion([truth[0]] * 6, truth) == pytest.approx(0.0)
    assert tremor(truth, truth) == tremor(duller, truth) == 0
    rng = np.random.default_rng(0)
    assert tremor([picture + rng.integers(0, 9, picture.shape, np.uint8) for picture in duller], truth) > 2
    assert error(truth, truth) == 0
    assert error([picture // 2 for picture in truth], truth) > 10


def test_a_ghost_is_less_sharp() -> None:
    given = clips.moving_face(7)
    ghosts = [np.uint8((a.astype(int) + b) // 2) for a, b in zip(given, given[3:], strict=False)]
    assert sharpness(ghosts) < 0.9 * sharpness(given)


def test_errors_are_averaged_and_what_moves_is_left() -> None:
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(1, 36, 32, 32, generator=generator)
    noise = 0.01 * torch.randn(len(SECONDS), 36, 32, 32, generator=generator)
    steadied = steady((still + noise).split(1), SECONDS, REACH)
    assert (steadied - still).std() < 0.6 * noise[REACH].std()
    moved = still.repeat(len(SECONDS), 1, 1, 1)
    moved[REACH + 1 :, :, 10:20, 10:20] += 1.0  # a mouth opens just after
    assert torch.allclose(steady(moved.split(1), SECONDS, REACH), still, atol=1e-3)
    assert torch.equal(steady([still], SECONDS[:1], 0), still)


def test_the_pace_of_a_clip_does_not_change_how_long_it_remembers() -> None:
    planes = torch.zeros(3, 3, 8, 8) + 1.0
    planes[0] += 0.01
    slow, fast = (steady(planes.split(1), np.array([-apart, 0.0, apart]), 1).mean().item() for apart in (0.5, 0.01))
    assert slow == pytest.approx(1.0, abs=1e-6)
    assert fast > 1.002
