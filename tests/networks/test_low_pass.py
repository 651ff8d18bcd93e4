"""The Gaussian filter against scipy's."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from anomaly_lab.networks.low_pass import low_pass


@pytest.mark.parametrize("shape", [(2, 3, 16, 9), (1, 1, 5, 6, 7), (1, 1, 1, 3)])
@pytest.mark.parametrize("sigma", [0.5, 2.0, 9.0])
def test_equals_scipy(shape, sigma):
    image = torch.rand(shape)
    expected = gaussian_filter(image.numpy(), (0, 0, *[sigma] * (len(shape) - 2)))
    np.testing.assert_allclose(low_pass(image, sigma).numpy(), expected, atol=1e-5)


def test_no_blur_changes_nothing_and_a_constant_stays():
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(low_pass(image, 0), image)
    torch.testing.assert_close(low_pass(torch.full((1, 1, 8, 8), 0.3), 3.0), torch.full((1, 1, 8, 8), 0.3))
