import numpy as np
import pytest

from anomaly_lab.data.twins.chest import add_noise, draw_chest, draw_effusion, draw_opacity


def chest(seed, **arguments):
    return draw_chest(np.random.default_rng(seed), (96, 110), **arguments)


def test_lungs_are_dark_in_a_bright_body_and_the_heart_lies_on_the_right_of_the_picture():
    for seed in range(8):
        drawn = chest(seed)
        assert drawn.image.shape == drawn.lungs.shape == (96, 110)
        air, body = drawn.image[drawn.lungs > 0.9], drawn.image[70:, 40:70][drawn.lungs[70:, 40:70] < 0.1]
        assert air.mean() < body.mean() - 30
        assert drawn.lungs[:, :55].sum() > drawn.lungs[:, 55:].sum()


def test_large_heart_takes_room_from_the_lungs():
    assert chest(3, heart=1.6).lungs.sum() < chest(3).lungs.sum()


@pytest.mark.parametrize("draw", [draw_opacity, draw_effusion])
def test_findings_brighten_the_lung_where_the_mask_is(draw):
    for seed in range(12):
        before = chest(seed)
        after, mask = draw(np.random.default_rng(seed), before)
        change = after.image - before.image
        assert mask.dtype == bool
        assert mask.any()
        assert change[mask].min() > 0
        assert np.abs(change[before.lungs == 0]).max() == 0


def test_noise_gives_grey_levels_and_follows_its_generator():
    image = chest(0).image
    one, two, other = (add_noise(np.random.default_rng(seed), image) for seed in (5, 5, 6))
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
