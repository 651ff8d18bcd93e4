import numpy as np

from anomaly_lab.data.readers.scan import Scan


def test_a_picture_has_a_shape_and_no_spacing():
    scan = Scan(np.zeros((3, 5, 7), np.uint8))
    assert scan.shape == (5, 7)
    assert scan.spacing is None


def test_spacing_is_the_length_of_the_affines_columns():
    turned = np.array([[0.0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 0.5, 7], [0, 0, 0, 1]])
    assert Scan(np.zeros((1, 2, 2, 2)), affine=turned).spacing == (3.0, 2.0, 0.5)
