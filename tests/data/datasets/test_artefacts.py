import cv2
import numpy as np
import pytest
from PIL import Image

from anomaly_lab.data.datasets.artefacts import artefact_share


@pytest.fixture
def share(tmp_path):
    def share(pixels):
        path = tmp_path / "picture with spaces é.png"
        Image.fromarray(pixels).save(path)
        return artefact_share(path)

    return share


def skin():
    """Smooth skin with a dark round lesion."""
    pixels = np.full((300, 400, 3), (220, 170, 140), np.uint8)
    cv2.circle(pixels, (200, 150), 60, (110, 70, 50), -1)
    return cv2.GaussianBlur(pixels, (0, 0), 3)


def test_skin_and_a_lesion_are_no_artefacts(share):
    assert share(skin()) < 0.005


@pytest.mark.parametrize("end", [(390, 20), (390, 150), (390, 280), (20, 290)])
def test_hair_counts_in_any_direction(share, end):
    pixels = skin()
    cv2.line(pixels, (10, 15), end, (50, 35, 30), 2, cv2.LINE_AA)
    assert share(pixels) > share(skin()) + 0.003


def test_short_dark_spots_do_not_count(share):
    pixels = skin()
    for x in range(20, 390, 30):
        cv2.circle(pixels, (x, 30), 4, (50, 35, 30), -1)
    assert share(pixels) == pytest.approx(share(skin()), abs=0.001)


def test_blue_ink_counts_by_its_share(share):
    pixels = skin()
    pixels[:30] = (90, 70, 160)
    assert share(pixels) == pytest.approx(share(skin()) + 0.1, abs=0.01)


def test_an_unreadable_picture_is_left_to_the_reader(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no picture")
    assert artefact_share(path) == 0
    assert artefact_share(tmp_path / "missing.jpg") == 0
