"""The grid's order and scale."""

import torch

from anomaly_lab.callbacks.samples import grid


def test_grid_is_row_by_row_and_fills_the_greys() -> None:
    image = torch.tensor([-1.0, 0.0, 0.5, 1.0]).reshape(4, 1, 1, 1).expand(4, 1, 2, 3)
    picture = grid(image, side=2)
    assert picture.shape == (4, 6, 1)
    assert picture[::2, ::3, 0].tolist() == [[0, 128], [191, 255]]
