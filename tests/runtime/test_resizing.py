"""Pictures are resized as torch resizes them: pixel for pixel, so that stored grey values are the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from anomaly_lab.data.preprocessing.transforms import Preprocessing, quantise
from anomaly_lab.data.readers.pictures import as_picture
from anomaly_lab.data.readers.scan import Scan
from anomaly_lab.runtime.resizing import resized
from anomaly_lab.runtime.scorer import _Preprocessing

SIDES = st.integers(2, 90)


def pixels(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (channels, height, width))
    return np.asarray(values / np.float32(255), np.float32)


@settings(max_examples=150, deadline=None)
@given(height=SIDES, width=SIDES, size=st.tuples(SIDES, SIDES), channels=st.sampled_from([1, 3]), smooth=st.booleans())
def test_values_are_those_of_torch(height: int, width: int, size: tuple[int, int], channels: int, smooth: bool) -> None:
    before = pixels(channels, height, width)
    wanted = F.interpolate(torch.from_numpy(before)[None], size, mode="bilinear", antialias=smooth)[0].numpy()
    got = resized(before, size, smooth)
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    height=SIDES,
    width=SIDES,
    size=st.tuples(SIDES, SIDES),
    fit=st.sampled_from(["pad", "stretch"]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32, np.float64]),
    colour=st.booleans(),
    channels=st.sampled_from([1, 3]),
)
def test_pictures_are_prepared_as_a_run_prepares_them(  # noqa: PLR0913 – what pictures can be
    height, width, size, fit, dtype, colour, channels
) -> None:
    rng = np.random.default_rng(3)
    shape = (height, width, 3) if colour else (height, width)
    is_float = np.dtype(dtype).kind == "f"
    array = rng.random(shape).astype(dtype) if is_float else rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    scan = Scan(as_picture(array, channels))
    wanted, got = Preprocessing(size, fit)(scan).pixels, _Preprocessing(size, fit)(scan).pixels
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)
    levels = [quantise(each, np.dtype(np.uint8)).astype(int) for each in (wanted, got)]
    apart = np.abs(levels[0] - levels[1])
    assert apart.max() <= 1  # a value between two levels may fall to either side, which is rare:
    assert np.count_nonzero(apart) <= 1 + apart.size // 10_000
    one = rng.random(size).astype(np.float32)
    undone = [kind(size, fit).undo(one, (height, width)) for kind in (Preprocessing, _Preprocessing)]
    np.testing.assert_allclose(undone[1], undone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (300, 2)])
def test_sizes_of_one_pixel(size: tuple[int, int]) -> None:
    for before in (pixels(1, 1, 1), pixels(1, 1, 50), pixels(3, 64, 48)):
        for smooth in (True, False):
            wanted = F.interpolate(torch.from_numpy(before)[None], size, mode="bilinear", antialias=smooth)[0].numpy()
            np.testing.assert_allclose(resized(before, size, smooth), wanted, rtol=0, atol=1e-6)


def test_a_flat_picture_stays_flat() -> None:
    assert np.ptp(resized(np.full((1, 37, 53), 0.3, np.float32), (16, 90), antialias=True)) < 1e-6
