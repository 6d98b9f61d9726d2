"""The benchmark of adapting: its own styles are true edits, and its table says the median and the range."""

import io
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.adapt import DRAWN, FIRST_PERSON, Measured, paint_photo, show, write_pairs
from models.procedural import STYLES, raw_photo, shading
from tasks.adaptation.folder import find_pairs


def test_a_drawn_style_is_the_photograph_but_for_its_paint() -> None:
    photo = raw_photo(FIRST_PERSON).rgb
    assert np.array_equal(paint_photo(FIRST_PERSON, shading.natural), photo)
    for style in DRAWN.values():
        changed = (paint_photo(FIRST_PERSON, style.painter) != photo).any(axis=-1)
        assert 0.02 < changed.mean() < 0.6
        assert not changed[0].any()  # the background


def test_its_styles_are_unknown_to_the_editor_and_its_folder_is_one_that_adapt_takes(tmp_path: Path) -> None:
    assert not set(DRAWN) & set(STYLES)
    folder = write_pairs(DRAWN["blue-hair"], tmp_path, 3)
    assert [pair.name for pair in find_pairs(folder)] == [str(FIRST_PERSON + n) for n in range(3)]


def test_the_table_says_median_range_and_how_often_enough_was_gained() -> None:
    def measured(seed: int, gain: float, old_loss: float) -> Measured:
        same = {"lpips_before": 2.0, "lpips_teachers": 0.5, "gain_possible": 0.75, "iterations": 300.0}
        own = {"gain": gain, "gain_low": gain - 0.1, "gain_high": gain + 0.1, "old_loss": old_loss}
        return Measured("aaaa", "bald", seed, {**same, **own, "lpips": 2.0 * (1 - gain), "learned_s": 60.0})

    console = Console(file=io.StringIO(), width=160)
    show([measured(0, 0.2, 0.01), measured(1, 0.4, 0.06), measured(2, 0.35, 0.02)], console)
    assert isinstance(console.file, io.StringIO)
    said = " ".join(console.file.getvalue().split())
    assert "35% (20% to 40%) 10% to 50% 75% +2.0% 5.0" in said
    assert "by 35% in the median of 3 (20% to 40%), by 30% or more in 2" in said
    assert "5% at most in 2" in said
