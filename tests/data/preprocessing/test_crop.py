"""Boxes by hand, whatever is cropped alike, and the road back; that nothing found is whole and said."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_lab.data.preprocessing.crop import Crop, cropped
from anomaly_lab.data.readers.scan import Origin, Scan

CROPS = [name for name in get_args(Crop) if name != "none"]


def disc(shape: tuple[int, int] = (90, 120), at: tuple[int, int] = (50, 70), radius: int = 20) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 <= radius**2
    return np.where(inside, 120, 0).astype(np.uint8)[None]


@pytest.mark.parametrize("crop", ["head", "breast", "fundus", "foreground"])
def test_a_disc_is_boxed_and_a_label_is_not(crop: Crop) -> None:
    pixels = disc()
    pixels[0, 2:5, 2:14] = 255  # a label, brighter than the rest
    scan = cropped(Scan(pixels, mask=pixels > 200), crop)
    assert all(39 <= side <= 43 for side in scan.shape)  # the tips of a disc are narrower than what is opened
    assert scan.origin is not None
    assert abs(scan.origin.rows[0] - 30) <= 1
    assert abs(scan.origin.columns[0] - 50) <= 1
    assert scan.pixels.max() == 120
    assert scan.mask is not None
    assert not scan.mask.any()  # the label lay outside
    assert scan.lesion_cut_away
    half = np.zeros_like(pixels, bool)
    half[0, 2:50, 2:60] = True  # outside and inside
    assert not cropped(Scan(pixels, mask=half), crop).lesion_cut_away
    assert not cropped(Scan(pixels, mask=half & False), crop).lesion_cut_away
    assert not scan.uncropped


def test_foreground_is_what_differs_from_a_light_border() -> None:
    pixels = 255 - disc()
    assert max(cropped(Scan(pixels), "foreground").shape) <= 43
    assert cropped(Scan(pixels), "head").shape == (90, 120)  # what is bright is all around


def test_margins_are_rows_and_columns_of_white_or_black() -> None:
    pixels = np.random.default_rng(0).integers(30, 200, (1, 60, 80), np.uint8)
    pixels[:, :7] = 255
    pixels[:, :, 75:] = 0
    scan = cropped(Scan(pixels), "margins")
    assert scan.shape == (53, 75)
    assert scan.origin is not None
    assert scan.origin.rows[0] == 7


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 40, 40), np.uint8), np.full((3, 9, 30), 77, np.uint16)], ids=["0", "77"]
)
def test_what_shows_nothing_stays_whole_and_says_so(crop: Crop, pixels: np.ndarray) -> None:
    scan = cropped(Scan(pixels), crop)
    assert scan.uncropped
    assert scan.shape == pixels.shape[1:]
    assert scan.origin is None


@settings(max_examples=40, deadline=None)
@given(
    crop=st.sampled_from(CROPS),
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 300), st.integers(1, 40)),
    channels=st.sampled_from([1, 3]),
)
def test_any_picture_comes_back_to_its_place(crop: Crop, seed: int, shape: tuple[int, int], channels: int) -> None:
    random = np.random.default_rng(seed)
    pixels = (random.integers(0, 4, (channels, *shape)) * random.integers(0, 80)).astype(np.uint8)
    scan = cropped(Scan(pixels, mask=pixels[:1] > 100, foreground=pixels[:1] > 0), crop)
    assert scan.mask is not None
    assert scan.foreground is not None
    assert scan.mask.shape == scan.foreground.shape == (1, *scan.shape)
    if scan.origin is not None:
        assert np.array_equal(scan.origin.cut(pixels), scan.pixels)
        rows, columns = (slice(place[0], place[-1] + 1) for place in (scan.origin.rows, scan.origin.columns))
        back = scan.origin.back(scan.pixels[0])
        assert np.array_equal(back[rows, columns], pixels[0, rows, columns])
        assert back.sum(dtype=int) == scan.pixels[0].sum(dtype=int)


def test_a_picture_that_is_cropped_already_keeps_both_origins() -> None:
    """One that its data set mirrors, as a mammogram is."""
    whole = disc(at=(50, 30))
    before = Origin((90, 120), range(10, 90), range(119, -1, -1))
    scan = cropped(Scan(before.cut(whole), origin=before), "breast")
    assert scan.origin is not None
    assert scan.origin.shape == (90, 120)
    assert np.array_equal(scan.origin.back(scan.pixels[0]), whole[0])


def test_a_volume_has_one_box_and_its_voxels_stay_where_they_are() -> None:
    pixels = np.full((1, 30, 40, 12), -1000.0)
    pixels[0, 8:20, 10:30, 3:9] = 40.0
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = [-7, 11, 13]
    scan = cropped(Scan(pixels, affine=affine, mask=pixels > 0), "breast")
    assert scan.shape == (12, 20, 6)
    assert scan.affine is not None
    assert np.allclose(scan.affine @ [0, 0, 0, 1], affine @ [8, 10, 3, 1])
    assert scan.own_grid.shape == (30, 40, 12)
    assert np.array_equal(scan.own_grid.affine, affine)
    assert scan.mask is not None
    assert scan.mask.all()


def test_none_is_the_scan_itself() -> None:
    scan = Scan(disc())
    assert cropped(scan, "none") is scan


@pytest.mark.parametrize("outside", [-1024.0, -2000.0, -3024.0])
@pytest.mark.parametrize("crop", ["head", "foreground"])
def test_what_lies_outside_a_ct_field_of_view_is_air(outside: float, crop: Crop) -> None:
    """The head was the circle of the field of view where corners are below air, and nothing said so."""
    rows, columns = np.ogrid[:128, :128]
    from_centre = np.hypot(rows - 63.5, columns - 63.5)
    head = ((rows - 64) / 40) ** 2 + ((columns - 60) / 30) ** 2 <= 1
    slice_ = np.where(head, 40.0, np.where(from_centre > 64, outside, -1000.0)).astype(np.float32)
    scan = cropped(Scan(np.repeat(slice_[None, None], 6, axis=1), affine=np.eye(4)), crop)
    assert scan.shape[0] == 6
    assert all(abs(side - expected) <= 6 for side, expected in zip(scan.shape[1:], (81, 61), strict=True))
    assert not scan.uncropped
