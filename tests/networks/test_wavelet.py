"""The wavelet filter and what is resampled by it: by the theory of wavelets, by scipy, by exact flips and turns."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor

from anomaly_lab.networks import wavelet
from anomaly_lab.networks.augmentation import rotation, warped
from anomaly_lab.networks.wavelet import smoothly_warped


def smooth(n: int = 2, channels: int = 1, side: int = 32) -> Tensor:
    """Pictures without fine detail."""
    coarse = torch.rand(n, channels, 5, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic", align_corners=True)


def turned(angle: float) -> Tensor:
    return torch.cat([rotation(torch.full((1, 1, 1, 1), angle)), torch.zeros(1, 2, 1)], 2)


def test_the_filter_is_the_symlet_of_six_vanishing_moments() -> None:
    h = np.array(wavelet.SYM6)
    assert h.sum() == pytest.approx(math.sqrt(2), abs=1e-10)
    for shift in range(0, 12, 2):  # orthogonal to its own even shifts
        assert (h[shift:] * h[: 12 - shift]).sum() == pytest.approx(float(shift == 0), abs=1e-10)
    alternating = h * (-1.0) ** np.arange(12)
    for moment in range(6):
        assert (alternating * np.arange(12) ** moment).sum() == pytest.approx(0, abs=1e-6)


def test_doubling_and_halving_are_scipys() -> None:
    x, h = torch.rand(1, 1, 9, 9), np.array(wavelet.SYM6)
    inner = np.pad(x[0, 0].double().numpy(), 3, mode="reflect")
    up = upfirdn(h * math.sqrt(2), upfirdn(h * math.sqrt(2), inner, up=2, axis=0), up=2, axis=1)[11:29, 11:29]
    np.testing.assert_allclose(wavelet.doubled(x)[0, 0], up, atol=1e-5)
    down = h[::-1] / math.sqrt(2)
    y = np.random.default_rng(0).random((28, 28))
    full = upfirdn(down, upfirdn(down, y, down=1, axis=0), down=1, axis=1)[11:28:2, 11:28:2]
    np.testing.assert_allclose(wavelet.halved(torch.from_numpy(y)[None, None])[0, 0], full, atol=1e-6)


def test_without_a_transform_nothing_changes() -> None:
    image = torch.rand(2, 3, 24, 24)
    same = smoothly_warped(image, torch.eye(2, 3).expand(2, 2, 3))
    torch.testing.assert_close(same[..., 6:-6, 6:-6], image[..., 6:-6, 6:-6], atol=1e-5, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_smooth_pictures_are_turned_exactly(quarters: int) -> None:
    """Though the filter is not symmetric; without its centre the error would be three times as large."""
    image = smooth()
    found = smoothly_warped(image, turned(quarters * math.pi / 2).expand(2, 2, 3))
    expected = min((found - image.rot90(k, (2, 3))).abs()[..., 4:-4, 4:-4].max() for k in (1, 2, 3))
    assert expected < 0.01


def test_whole_steps_move_smooth_pictures_by_pixels() -> None:
    image = smooth(1)
    down = torch.tensor([[[1.0, 0, 0], [0, 1, -2 * 2 / 32]]])
    difference = smoothly_warped(image, down)[:, :, 2:] - image[:, :, :-2]
    assert difference[..., 4:-4, 4:-4].abs().max() < 0.01


def test_it_agrees_with_plain_resampling_where_there_is_nothing_to_alias() -> None:
    image, matrix = smooth(1), 0.9 * turned(0.5)
    difference = smoothly_warped(image, matrix) - warped(image, matrix)
    assert difference[..., 6:-6, 6:-6].abs().max() < 0.05


def test_fine_detail_fades_where_it_cannot_be_shown() -> None:
    """Stripes as fine as pixels, shrunk: plain resampling makes coarse stripes of them, the filter grey."""
    stripes = (torch.arange(32) % 2 * 2.0 - 1).expand(1, 1, 32, 32)
    matrix = 1.9 * torch.eye(2, 3)[None]
    inside = slice(10, 22)
    filtered, plain = (f(stripes, matrix)[0, 0, inside, inside] for f in (smoothly_warped, warped))
    assert filtered.std() < 0.3 * plain.std()


def test_gradients_equal_finite_differences() -> None:
    image = torch.rand(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    matrix = (1.2 * turned(0.4)).double().expand(2, 2, 3)
    assert torch.autograd.gradcheck(lambda x: smoothly_warped(x, matrix), (image,), atol=1e-5, fast_mode=True)
