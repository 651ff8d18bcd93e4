import numpy as np

from anomaly_lab.evaluation.shortcuts import greys, places
from anomaly_lab.evaluation.shortcuts.audit import rules_of
from anomaly_lab.evaluation.shortcuts.view import View

RULES = rules_of(places)


def test_places_are_where_they_say():
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 28:36, 28:36] = 255
    view = View(image)
    assert places.middle(view) > 5 * greys.mean(view) > 0
    assert places.border(view) == places.corner_spread(view) == 0
    assert places.middle_minus_border(view) == places.middle(view)
    for name, corner in (
        ("top_left", (slice(0, 9), slice(0, 9))),
        ("top_right", (slice(0, 9), slice(55, 64))),
        ("bottom_left", (slice(55, 64), slice(0, 9))),
        ("bottom_right", (slice(55, 64), slice(55, 64))),
    ):
        image = np.zeros((1, 64, 64), np.uint8)
        image[0][corner] = 200
        view = View(image)
        lit = {other for other in ("top_left", "top_right", "bottom_left", "bottom_right") if RULES[other](view)}
        assert lit == {name}
        assert places.corner_spread(view) == RULES[name](view)
        assert places.left_minus_right(view) * (1 if "left" in name else -1) > 0
        assert places.top_minus_bottom(view) * (1 if "top" in name else -1) > 0
        assert places.asymmetry(view) > 0
