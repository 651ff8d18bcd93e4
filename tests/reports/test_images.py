"""Colours of scans and maps by hand, outlines that close, pictures that open."""

import base64
import io

import numpy as np
from PIL import Image

from anomaly_lab.reports.images import data_uri, heat, outline, overlay, shades


def test_shades_of_grey_and_colour() -> None:
    grey = shades(np.array([[[-1.0, 0.0, 3.0]]]))
    assert grey.shape == (1, 3, 3)
    assert grey[0, :, 0].tolist() == [0, 0.5, 1]
    assert shades(np.array([[[-1.0]], [[0.0]], [[1.0]]]))[0, 0].tolist() == [0, 0.5, 1]


def test_heat_gets_lighter_all_the_way() -> None:
    light = heat(np.linspace(0, 1, 64)[None])[0] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light) > 0).all()


def test_an_empty_map_leaves_the_scan_as_it_is() -> None:
    image = np.linspace(-1, 1, 16).reshape(1, 4, 4)
    assert np.allclose(overlay(image, np.zeros((4, 4)), 1.0), shades(image))


def test_the_same_map_value_has_the_same_colour_in_every_picture() -> None:
    image = np.zeros((1, 2, 2))
    weak, strong = np.full((2, 2), 0.2), np.array([[0.2, 0.2], [0.2, 9.0]])
    assert np.allclose(overlay(image, weak, 1.0)[0, 0], overlay(image, strong, 1.0)[0, 0])


def test_the_outline_of_one_pixel_has_four_sides() -> None:
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    assert set(outline(mask).split("M")) == {"", "2 1h1", "2 2h1", "2 1v1", "3 1v1"}


def test_the_outline_of_a_lesion_at_the_border_is_closed() -> None:
    assert outline(np.ones((2, 3), dtype=bool)).count("M") == 2 * (2 + 3)


def test_pictures_are_png_of_at_most_256_pixels() -> None:
    uri = data_uri(np.zeros((300, 600, 3)))
    head, _, content = uri.partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (256, 128)
