from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly_lab.evaluation.stitching import Stitcher, case_scores, score_maps


def by_hand(shape, patches, locations) -> np.ndarray:
    """Voxel by voxel."""
    found: dict[tuple[int, ...], list[float]] = {}
    for patch, location in zip(patches, locations, strict=True):
        for index in np.ndindex(patch.shape):
            found.setdefault(tuple(np.add(location, index)), []).append(float(patch[index]))
    result = np.zeros(shape, np.float32)
    for index, values in found.items():
        result[index] = np.mean(values)
    return result


@given(data=st.data(), axes=st.integers(2, 3))
@settings(max_examples=50, deadline=None)
def test_the_same_as_voxel_by_voxel(data, axes):
    shape = tuple(data.draw(st.integers(1, 6)) for _ in range(axes))
    extent = tuple(data.draw(st.integers(1, side)) for side in shape)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    count = data.draw(st.integers(0, 6))
    patches = rng.normal(size=(count, *extent)).astype(np.float32)
    locations = rng.integers(0, np.subtract(shape, extent) + 1, (count, axes))
    stitcher = Stitcher(shape)
    stitcher.add(patches[:2], locations[:2])
    stitcher.add(patches[2:], locations[2:])
    result = stitcher.result()
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, by_hand(shape, patches, locations), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_of_a_volume_give_the_volume_back(axis):
    volume = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    stitcher = Stitcher(volume.shape)
    for position in range(volume.shape[axis]):
        stitcher.add(
            np.take(volume, [position], axis).squeeze(axis)[None], np.eye(3, dtype=int)[[axis]] * position, axis
        )
    assert np.array_equal(stitcher.result(), volume)


def test_many_overlaps_give_the_same_bits_back():
    image = np.random.default_rng(0).normal(0, 1e3, (7, 8)).astype(np.float32)
    locations = np.argwhere(np.ones((5, 6)))
    stitcher = Stitcher(image.shape)
    for i, j in locations:
        stitcher.add(image[None, i : i + 3, j : j + 3], np.array([[i, j]]))
    assert np.array_equal(stitcher.result(), image)


@pytest.mark.parametrize("location", [(-1, 0), (0, 3)])
def test_a_patch_outside_is_refused(location):
    with pytest.raises(ValueError, match="does not fit in the scan"):
        Stitcher((4, 4)).add(np.zeros((1, 2, 2)), np.array([location]))


def test_every_patch_needs_a_place():
    with pytest.raises(ValueError, match="argument 2"):
        Stitcher((4, 4)).add(np.zeros((2, 2, 2)), np.zeros((1, 2), int))


SCORE = np.array([3.0, 1.0, 2.0, 5.0, 0.0, 4.0])
CASE = np.array(["b", "a", "b", "a", "a", "b"])


@pytest.mark.parametrize(
    ("rule", "k", "expected"),
    [("max", 10, [5, 4]), ("mean", 10, [2, 3]), ("top_k", 1, [5, 4]), ("top_k", 2, [3, 3.5]), ("top_k", 10, [2, 3])],
)
def test_rules_by_hand(rule, k, expected):
    ids, scores = case_scores(SCORE, CASE, rule, k)
    assert ids.tolist() == ["a", "b"]
    assert scores.tolist() == expected


@given(seed=st.integers(0, 1000), k=st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_rules_against_a_loop_and_in_any_order(seed, k):
    rng = np.random.default_rng(seed)
    score, case = rng.integers(-5, 5, 40).astype(np.float32), rng.integers(0, 7, 40)
    shuffled = rng.permutation(40)
    for rule, taken in (("max", 1), ("mean", 40), ("top_k", k)):
        ids, scores = case_scores(score, case, rule, k)
        by_loop = [np.mean(np.sort(score[case == i])[::-1][:taken], dtype=np.float64) for i in ids]
        np.testing.assert_allclose(scores, by_loop, rtol=1e-12)
        assert np.array_equal(case_scores(score[shuffled], case[shuffled], rule, k)[1], scores)
    assert all(a < b for a, b in pairwise(ids.tolist()))


@pytest.mark.parametrize("rule", ["max", "mean", "top_k"])
def test_nan_is_not_hidden(rule):
    ids, scores = case_scores(np.array([1.0, np.nan, 2.0]), np.array([0, 0, 1]), rule, k=1)
    assert ids.tolist() == [0, 1]
    assert np.isnan(scores[0])
    assert scores[1] == 2


@pytest.mark.parametrize(("rule", "k"), [("median", 1), ("top_k", 0)])
def test_unknown_rules(rule, k):
    with pytest.raises(ValueError, match="cannot combine scores by rule"):
        case_scores(SCORE, CASE, rule, k)


def test_a_score_fills_its_window():
    maps = score_maps(np.array([-30.0, -20.0, -15.0, 0.0]), (2, 3), zero=-20.0, one=-10.0)
    assert maps.shape == (4, 2, 3)
    assert maps.dtype == np.float32
    assert maps[:, 0, 0].tolist() == [0, 0, 0.5, 2]
    assert all((window == window[0, 0]).all() for window in maps)


def test_a_sliding_window_by_hand():
    """Windows of 2 with a stride of 1 over 4 pixels: between the ends every pixel is the mean of two windows."""
    stitcher = Stitcher((1, 4))
    stitcher.add(score_maps(np.array([0.0, 1.0, 4.0]), (1, 2), 0.0, 1.0), np.array([[0, 0], [0, 1], [0, 2]]))
    assert stitcher.result().tolist() == [[0, 0.5, 2.5, 4]]


def test_normals_that_all_score_alike_leave_a_finite_map():
    maps = score_maps(np.array([0.0, 1.0, 4.0]), (2, 2), zero=1.0, one=1.0)
    assert maps[:, 0, 0].tolist() == [0, 0, 3]


def test_a_threshold_below_every_normal_does_not_invert_the_map():
    maps = score_maps(np.array([0.5, 2.0, 4.0]), (2, 2), zero=1.0, one=0.5)
    assert maps[:, 0, 0].tolist() == [0, 1, 3]
