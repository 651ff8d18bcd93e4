"""Maps of windows as one map of the scan."""

import numpy as np

from anomaly_lab.evaluation.maps import filled, whole_map


def test_overlaps_are_averaged_and_what_no_window_covers_is_zero() -> None:
    maps = np.stack([np.full((2, 2), value, np.float32) for value in (1, 3)])
    whole = whole_map(maps, np.array([[0, 0], [0, 1]]), (2, 4))
    assert whole.tolist() == [[1, 2, 3, 0]] * 2
    assert whole.dtype == np.float32


def test_slices_of_a_volume_lie_across_their_axis() -> None:
    whole = whole_map(np.ones((1, 2, 2), np.float32), np.array([[0, 1, 0]]), (2, 3, 2), across=1)
    assert whole[:, 1].tolist() == [[1, 1], [1, 1]]
    assert whole[:, [0, 2]].sum() == 0


def test_nothing_lights_up_outside_the_foreground_but_in_its_holes() -> None:
    foreground = np.ones((5, 5), bool)
    foreground[:, 0] = False
    foreground[2, 2] = False  # a hole
    whole = whole_map(np.ones((1, 5, 5), np.float32), np.array([[0, 0]]), (5, 5), foreground=foreground)
    assert whole[:, 0].sum() == 0
    assert whole[2, 2] == 1
    assert filled(foreground)[2, 2]
    assert not filled(foreground)[0, 0]
