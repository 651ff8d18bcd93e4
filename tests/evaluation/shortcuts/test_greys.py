"""The rules on greys, and what holds for every rule on pixels."""

import numpy as np
import pytest

from anomaly_lab.evaluation.shortcuts import greys, places, textures
from anomaly_lab.evaluation.shortcuts.audit import rules_of, title_of
from anomaly_lab.evaluation.shortcuts.view import View

RULES = {name: rule for module in (greys, places, textures) for name, rule in rules_of(module).items()}
SHAPES = [(1, 1, 1), (1, 2, 9), (1, 40, 33), (3, 20, 20), (1, 12, 16, 20), (3, 4, 20, 20)]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_rule_says_a_finite_number_or_nothing_of_any_picture(shape, dtype):
    noise = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    for image in (noise, np.zeros_like(noise), np.full_like(noise, np.iinfo(dtype).max)):
        for name, rule in RULES.items():
            said = rule(View(image))
            assert said is None or np.isfinite(said), name
    assert {"mean", "middle", "border", "noise", "compressed", "saturation"} <= RULES.keys()


def test_titles_are_short_and_different():
    titles = [title_of(rule) for rule in RULES.values()]
    assert len({*titles}) == len(titles) > 25
    assert all(2 < len(title) < 23 for title in titles)


def test_colours_are_told_and_grey_has_none():
    image = np.zeros((3, 8, 8), np.uint8)
    image[0] = 51
    assert [RULES[name](View(image)) for name in ("red_minus_blue", "red_minus_green", "saturation")] == [0.2] * 3
    assert greys.red_minus_blue(View(image[:1])) is None
    assert greys.saturation(View(np.full((3, 8, 8), 9, np.uint8))) == 0
