from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.data.preprocessing.patches import PatchSampling, cut, grid, shares
from anomaly_lab.data.preprocessing.transforms import Prepared
from anomaly_lab.types import UserError


def _scan(shape, mask=None, foreground=None, volume=False):
    pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(1, *shape) / np.prod(shape)
    return Prepared(pixels, mask, foreground, np.eye(4) if volume else None, 0.0)


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 20)), min_size=2, max_size=3),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9]),
)
def test_grid_covers_every_voxel_and_stays_inside(axes, overlap):
    extent = [window for window, _ in axes]
    shape = [window + more for window, more in axes]
    covered = np.zeros(shape, int)
    for start in grid(shape, extent, overlap):
        assert all(0 <= s <= side - window for s, side, window in zip(start, shape, extent, strict=True))
        covered[tuple(slice(s, s + window) for s, window in zip(start, extent, strict=True))] += 1
    assert covered.min() >= 1
    if overlap == 0 and all(side % window == 0 for side, window in zip(shape, extent, strict=True)):
        assert covered.max() == 1


def test_isic_has_13_by_17_windows():
    location = grid((128, 160), (32, 32), 0.75)
    assert len(location) == 13 * 17
    assert {tuple(at) for at in location} == set(product(range(0, 97, 8), range(0, 129, 8)))


def test_window_larger_than_the_scan_is_refused():
    with pytest.raises(UserError, match="32×32 is larger than the scan of 20×40"):
        grid((20, 40), (32, 32), 0.0)


def test_shares_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    values, extent = rng.random((1, 9, 7, 8)) < 0.4, (3, 2, 4)
    location = grid(values.shape[1:], extent, 0.5)
    plain = [values[0, a : a + 3, b : b + 2, c : c + 4].mean() for a, b, c in location]
    assert np.allclose(shares(values, location, extent), plain)


@pytest.mark.parametrize("across", [0, 1, 2])
def test_plane_of_a_volume_is_a_slice_of_it(across):
    scan = _scan((5, 6, 7), volume=True)
    axcodes, patch_sampling = {0: "IPL", 1: "AIL", 2: "RAI"}[across], PatchSampling(plane="axial")
    extent = patch_sampling.extent((3, 2), axcodes)
    assert extent[patch_sampling.axis(axcodes)] == 1
    location = grid((5, 6, 7), extent, 0.0)
    (patches,) = cut(scan.pixels, location, extent, patch_sampling.axis(axcodes))
    for patch, start in zip(patches, location, strict=True):
        window = tuple(slice(s, s + e) for s, e in zip(start, extent, strict=True))
        assert np.array_equal(patch[0], scan.pixels[0][window].squeeze(patch_sampling.axis(axcodes)))


def test_blocks_together_are_all_patches_in_order():
    scan, extent = _scan((20, 20)), (4, 4)
    location = grid((20, 20), extent, 0.0)
    blocks = list(cut(scan.pixels, location, extent, None, at_once=7))
    assert [len(block) for block in blocks] == [7, 7, 7, 4]
    assert np.array_equal(np.concatenate(blocks)[8, 0], scan.pixels[0, 4:8, 12:16])


def _lesion():
    mask = np.zeros((1, 12, 12), bool)
    mask[:, :4, :4] = True  # the first window whole
    mask[:, 4:6, :4] = True  # the one below it half
    mask[:, 4, 4] = True  # the one beside that by a single pixel
    return mask


def test_mask_rule_takes_healthy_and_lesion_and_leaves_out_what_is_between():
    windows = PatchSampling(label="mask", lesion=0.75).windows(_scan((12, 12), _lesion()), (4, 4), "a", 1, None)
    labels = {tuple(at): label for at, label in zip(windows.location.tolist(), windows.label.tolist(), strict=True)}
    assert labels[0, 0] == 1
    assert (4, 0) not in labels
    assert (4, 4) not in labels
    assert list(labels.values()).count(0) == 6
    any_lesion = PatchSampling(label="mask").windows(_scan((12, 12), _lesion()), (4, 4), "a", 1, None)
    assert any_lesion.label.sum() == 3
    assert len(any_lesion.label) == 9


def test_case_rule_gives_every_window_the_scans_label():
    assert PatchSampling().windows(_scan((12, 12), _lesion()), (4, 4), "a", 1, None).label.tolist() == [1] * 9


def test_anomalous_scan_without_a_mask_is_refused_by_the_mask_rule():
    with pytest.raises(UserError, match="has no mask"):
        PatchSampling(label="mask").windows(_scan((12, 12)), (4, 4), "a", 1, None)
    assert PatchSampling(label="mask").windows(_scan((12, 12)), (4, 4), "a", 0, None).label.tolist() == [0] * 9


def test_foreground_rule_asks_for_its_share():
    foreground = np.zeros((1, 12, 12), bool)
    foreground[:, :, :7] = True  # the middle column of windows has 3 of 4
    kept = [
        len(PatchSampling(foreground=share).windows(_scan((12, 12), foreground=foreground), (4, 4), "a", 0, None).label)
        for share in (0.0, 0.5, 0.75, 0.8, 1.0)
    ]
    assert kept == [9, 6, 6, 3, 3]


@pytest.mark.parametrize(
    ("slices", "first", "last"),
    [((2, 4), 2, 4), ((0.25, 0.75), 3, 8), ((0.25, 1.0), 3, 11), ((0, 1), 0, 1), ((0.0, 0.5), 0, 5)],
)
def test_slices_bound_the_planes(slices, first, last):
    windows = PatchSampling(slices=slices).windows(_scan((12, 4, 4), volume=True), (1, 4, 4), "a", 0, 0)
    assert windows.location[:, 0].tolist() == list(range(first, last + 1))


def test_random_windows_are_normal_seeded_by_the_case_and_apart_from_the_grid():
    patch_sampling = PatchSampling(label="mask", random=20)
    scan = _scan((12, 12), _lesion())
    one, two, other = (patch_sampling.windows(scan, (4, 4), case, 1, None) for case in ("a", "a", "b"))
    assert one.random.sum() == 20
    assert np.array_equal(one.location, two.location)
    assert not np.array_equal(one.location, other.location)
    assert not shares(scan.mask, one.location[one.random], (4, 4)).any()
    assert not one.label[one.random].any()
    assert PatchSampling(random=5).windows(scan, (4, 4), "a", 1, None).random.sum() == 0


def test_no_random_window_is_drawn_twice():
    """Two of one place would have one id."""
    windows = PatchSampling(random=20).windows(_scan((9, 9)), (6, 6), "a", 0, None)  # of sixteen places
    drawn = windows.location[windows.random]
    assert len(np.unique(drawn, axis=0)) == len(drawn) == 16


def test_cap_draws_a_part_of_the_grid():
    windows = PatchSampling(per_scan=4).windows(_scan((12, 12)), (4, 4), "a", 0, None)
    assert len({tuple(at) for at in windows.location.tolist()}) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "masks"}, "label takes case or mask"),
        ({"plane": "oblique"}, "plane one of"),
        ({"overlap": 1.0}, "overlap"),
        ({"foreground": 1.5}, "foreground"),
        ({"slices": (0.25, 8)}, r"slices=\[0\.25, 8\]: the first is a fraction, .* say both in one way"),
        ({"random": -1}, "random=-1: takes a number in"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PatchSampling(**settings)
