"""The rules on pixels: what each says of pictures where the answer is known."""

import io

import numpy as np
import pytest
from PIL import Image

from anomaly_lab.evaluation.shortcuts import pixels
from anomaly_lab.evaluation.shortcuts.audit import rules_of, title_of
from anomaly_lab.evaluation.shortcuts.view import View

RULES = rules_of(pixels)
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
    assert all(2 < len(title) < 30 for title in titles)


def test_places_are_where_they_say():
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 28:36, 28:36] = 255
    view = View(image)
    assert pixels.middle(view) > 5 * pixels.mean(view) > 0
    assert pixels.border(view) == pixels.corner_spread(view) == 0
    assert pixels.middle_minus_border(view) == pixels.middle(view)
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
        assert pixels.corner_spread(view) == RULES[name](view)
        assert pixels.left_minus_right(view) * (1 if "left" in name else -1) > 0
        assert pixels.top_minus_bottom(view) * (1 if "top" in name else -1) > 0
        assert pixels.asymmetry(view) > 0


def test_noise_is_measured_and_a_picture_under_it_is_not():
    random, ramp = np.random.default_rng(0), np.linspace(60, 200, 128)
    for sd in (4, 8):
        noisy = np.clip(np.rint(ramp + random.normal(0, sd, (1, 128, 128))), 0, 255).astype(np.uint8)
        assert pixels.noise(View(noisy)) * 255 == pytest.approx(sd, rel=0.06)
    assert pixels.noise(View(np.rint(np.broadcast_to(ramp, (1, 128, 128))).astype(np.uint8))) * 255 < 1


def test_jpeg_leaves_blocks_and_compresses_better():
    random = np.random.default_rng(0)
    grey = np.clip(128 + random.normal(0, 12, (96, 96)).cumsum(0).cumsum(1) / 40, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=30)
    coded = np.asarray(Image.open(file))
    assert pixels.blockiness(View(coded[None])) > 1.1 > pixels.blockiness(View(grey[None]))
    assert pixels.compressed(View(coded[None])) < pixels.compressed(View(grey[None]))


def test_sixteen_bits_are_compressed_by_bytes():
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64)).astype(np.uint16)
    assert pixels.compressed(View(image * 257)) > pixels.compressed(View(image)) > 0.9


def test_colours_are_told_and_grey_has_none():
    image = np.zeros((3, 8, 8), np.uint8)
    image[0] = 51
    assert [RULES[name](View(image)) for name in ("red_minus_blue", "red_minus_green", "saturation")] == [0.2] * 3
    assert pixels.red_minus_blue(View(image[:1])) is None
    assert pixels.saturation(View(np.full((3, 8, 8), 9, np.uint8))) == 0
