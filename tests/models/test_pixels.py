"""Pictures as bytes and as tensors."""

import numpy as np
import torch

from models.pixels import signed, to_bytes, to_levels


def test_bytes_come_back_as_they_were() -> None:
    picture = np.arange(2 * 16 * 8 * 3, dtype=np.uint16).reshape(2, 16, 8, 3).astype(np.uint8)
    assert np.array_equal(to_bytes(signed(picture)), picture)


def test_values_become_the_nearest_level() -> None:
    values = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0])
    assert to_levels(values).tolist() == to_levels(values.numpy()).tolist() == [0, 0, 1, 128, 255]
    assert to_levels(values).dtype == np.uint8


def test_a_picture_out_of_range_is_clamped() -> None:
    beyond = torch.tensor([-3.0, 3.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert to_bytes(beyond)[0, 0].tolist() == [[0, 0, 0], [255, 255, 255]]
