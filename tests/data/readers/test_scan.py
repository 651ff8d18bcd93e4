import numpy as np
import pytest

from anomaly_lab.data.readers.scan import Origin, Scan


def test_a_picture_has_a_shape_and_no_spacing():
    scan = Scan(np.zeros((3, 5, 7), np.uint8))
    assert scan.shape == (5, 7)
    assert scan.spacing is None


def test_spacing_is_the_length_of_the_affines_columns():
    turned = np.array([[0.0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 0.5, 7], [0, 0, 0, 1]])
    assert Scan(np.zeros((1, 2, 2, 2)), affine=turned).spacing == (3.0, 2.0, 0.5)


@pytest.mark.parametrize("step", [1, -1])
def test_values_go_back_to_the_picture_they_were_cut_from(step):
    own = np.arange(1, 31).reshape(5, 6)
    origin = Origin((5, 6), range(1, 7), range(-2, 8)[::step])  # cropped above, margins at the other sides
    cut = origin.cut(own[None])
    assert cut.shape == (1, 6, 10)
    assert np.array_equal(cut[0, :4, 2:8], own[1:, ::step])
    assert not cut[0, 4:].any()
    assert not cut[0, :, :2].any()
    back = origin.back(cut[0])
    assert np.array_equal(back[1:], own[1:])
    assert not back[0].any()
