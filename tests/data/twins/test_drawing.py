import numpy as np
import pytest

from anomaly_lab.data.twins.drawing import ellipse, smooth_noise, soft_step


def test_noise_is_smooth_and_follows_its_generator():
    one, two = (smooth_noise(np.random.default_rng(3), (60, 90), 5) for _ in range(2))
    assert one.shape == (60, 90)
    assert np.array_equal(one, two)
    assert np.abs(np.diff(one, axis=1)).max() < 0.5  # a bump spans 18 columns


def test_soft_step_is_a_ramp_about_zero():
    assert soft_step(np.array([-1.0, -0.5, 0.0, 0.25, 1.0]), 1.0).tolist() == [0, 0, 0.5, 0.75, 1]


@pytest.mark.parametrize(("angle", "rows", "columns"), [(0.0, 21, 11), (np.pi / 2, 11, 21)])
def test_ellipse_spans_its_radii_and_turns(angle, rows, columns):
    inside = ellipse((41, 41), (20, 20), (10.4, 5.4), angle) < 1
    assert (inside.any(1).sum(), inside.any(0).sum()) == (rows, columns)
