import numpy as np
import pytest

from anomaly_lab.data.readers.nifti import read_nifti
from anomaly_lab.data.twins.brain import distance, draw_brain, noise, write_volume

SHAPE, SPACING = (60, 72, 20), (3.0, 3.0, 8.4)


def test_a_brain_is_dark_outside_and_in_its_ventricles():
    brain = draw_brain(np.random.default_rng(0), SHAPE, SPACING)
    assert brain.image.shape == SHAPE
    assert brain.image.dtype == np.float32
    assert not brain.image[brain.radius >= 1].any()
    assert brain.image[[0, -1]].max() == brain.image[:, [0, -1]].max() == brain.image[:, :, [0, -1]].max() == 0
    middle = distance(SHAPE, brain.reach, (0.15, -0.05, 0.08), (0.05, 0.1, 0.1)) < 1
    assert brain.image[middle].mean() < 0.7 * brain.image[brain.radius < 1].mean()


def test_another_call_draws_another_brain():
    rng = np.random.default_rng(0)
    first, second = draw_brain(rng, SHAPE, SPACING), draw_brain(rng, SHAPE, SPACING)
    assert not np.array_equal(first.image, second.image)
    assert first.reach != second.reach


def test_distance_is_1_on_an_ellipsoid():
    r = distance((41, 41, 41), (2, 2, 2), (0.5, 0, -0.5), (0.5, 1, 0.25))
    assert r[25, 20, 15] == 0
    assert [r[30, 20, 15], r[25, 30, 15], r[25, 20, 17]] == pytest.approx([1, 1, 0.8], rel=1e-5)


@pytest.mark.parametrize("cells", [1, 5, 30])
def test_noise_is_about_standard(cells):
    values = noise(np.random.default_rng(0), (50, 40, 20), cells)
    assert values.shape == (50, 40, 20)
    assert values.dtype == np.float32
    assert np.abs(values).max() < 8
    if cells > 1:
        assert 0.5 < values.std() < 1.5


def test_written_in_its_own_type(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_volume(tmp_path / "a.nii.gz", values, np.diag([1.0, 2, 3, 1]))
    scan = read_nifti(tmp_path / "a.nii.gz")
    assert scan.pixels.dtype == np.int16
    assert np.array_equal(scan.pixels[0], values)
