import numpy as np
import pytest

from anomaly_lab.evaluation.shortcuts.view import View, block_edges


def test_percentiles_are_those_of_numpy_of_the_nearest_rank():
    image = np.random.default_rng(0).integers(0, 256, (1, 31, 17), np.uint8)
    for q in (1, 5, 25, 50, 75, 95, 99):
        nearest = np.percentile(image, q, method="inverted_cdf")
        assert View(image).percentile(q) == pytest.approx(nearest / 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_is_the_mean_of_the_channels_as_a_fraction_of_white(dtype):
    white = np.iinfo(dtype).max
    image = np.stack([np.full((4, 5), white), np.zeros((4, 5)), np.zeros((4, 5))]).astype(dtype)
    assert View(image).grey == pytest.approx(np.full((4, 5), 1 / 3), abs=1 / 255)


def test_the_laplacian_of_a_parabola_is_constant_in_two_and_three_axes():
    for axes in (2, 3):
        place = np.indices((7,) * axes)
        view = View(np.square(place).sum(0, dtype=np.uint8)[None])
        assert view.laplacian.shape == (5,) * axes
        assert view.laplacian * 255 == pytest.approx(np.full((5,) * axes, 2 * axes), abs=1e-3)


def test_block_edges_need_two_blocks():
    assert block_edges(np.zeros((16, 40))) is None
    assert block_edges(np.zeros((40, 40))) == pytest.approx(1)
