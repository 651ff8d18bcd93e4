import numpy as np
import pytest
import torch

from anomaly_lab.data.preprocessing.augmentation import Augmentation, uniforms

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 1, 16, 12), np.uint8)
DRAWS = np.arange(100, 106)
FULL = Augmentation(flip=0.5, degrees=10, shift=0.05, gamma=1.25)


def test_nothing_asked_nothing_changed():
    assert np.array_equal(Augmentation()(IMAGES, DRAWS, 0), IMAGES)


def test_certain_flip_is_a_mirror():
    assert np.array_equal(Augmentation(flip=1.0)(IMAGES, DRAWS, 0), IMAGES[..., ::-1])


def test_half_the_pictures_are_flipped():
    many = np.repeat(IMAGES[:1], 400, axis=0)
    flipped = (Augmentation(flip=0.5)(many, np.arange(400), 0) != many).any((1, 2, 3))
    assert 150 < flipped.sum() < 250


def test_change_depends_on_seed_and_draw_alone():
    together = FULL(IMAGES, DRAWS, 7)
    alone = np.concatenate([FULL(IMAGES[i : i + 1], DRAWS[i : i + 1], 7) for i in reversed(range(6))])[::-1]
    assert np.array_equal(together, alone)
    assert not np.array_equal(together, FULL(IMAGES, DRAWS, 8))
    assert not np.array_equal(together, FULL(IMAGES, DRAWS + 1, 7))


def test_shift_stays_within_its_bound_and_lets_black_in():
    dot = np.zeros((50, 1, 21, 21), np.uint8)
    dot[:, :, 10, 10] = 255
    rows, columns = np.mgrid[:21, :21]
    moved = Augmentation(shift=0.2)(dot, np.arange(50), 0)[:, 0].astype(float)
    centres = [(moved * axis).sum((1, 2)) / moved.sum((1, 2)) for axis in (rows, columns)]
    assert np.abs(np.array(centres) - 10).max() <= 0.2 * 21 + 0.1
    assert np.std(centres) > 1
    white = Augmentation(shift=0.2)(np.full_like(dot, 255), np.arange(50), 0)
    assert set(np.unique(white[:, 0, 10, [0, -1]])) >= {0, 255}


def test_gamma_keeps_black_and_white():
    ends = np.zeros((20, 1, 4, 4), np.uint8)
    ends[..., 2:] = 255
    changed = Augmentation(gamma=2.0)(ends, np.arange(20), 0)
    assert np.abs(changed.astype(int) - ends).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_behave_like_eight(channels):
    images = np.repeat(IMAGES, channels, axis=1)
    deep = FULL(images.astype(np.uint16) * 257, DRAWS, 0)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - FULL(images, DRAWS, 0)).max() <= 3


def test_uniforms_are_uniform_and_uncorrelated():
    numbers = uniforms(3, np.arange(20000), 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.allclose(numbers.mean(0), 0.5, atol=0.01)
    assert np.allclose(numbers.var(0), 1 / 12, atol=0.005)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 0.03


@pytest.mark.parametrize("wrong", [{"flip": 2}, {"degrees": -1}, {"shift": 1}, {"gamma": 0.5}, {"gamma": float("nan")}])
def test_value_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}=.*: takes a number in"):
        Augmentation(**wrong)


@pytest.mark.parametrize("volumes", [{"scale": 1.1}, {"flip": (0.5, 0.0, 0.0)}])
def test_what_is_for_volumes_is_refused_for_pictures(volumes):
    with pytest.raises(ValueError, match="for patches of volumes"):
        Augmentation(**volumes)(IMAGES, DRAWS, 0)


def test_flip_alone_equals_the_flip_of_the_warp():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 9, 12), np.uint8)
    draws = np.arange(20)
    alone = Augmentation(flip=0.5)(images, draws, seed=3)
    warped = Augmentation(flip=0.5, degrees=1e-12)(images, draws, seed=3)
    assert np.array_equal(alone, warped)
    mirrored = [not np.array_equal(a, b) for a, b in zip(alone, images, strict=True)]
    assert 4 < sum(mirrored) < 16
    assert all(np.array_equal(alone[i], images[i][..., ::-1]) for i in range(20) if mirrored[i])


SETTINGS = [
    Augmentation(),
    Augmentation(flip=0.5),
    Augmentation(degrees=180),
    Augmentation(shift=0.3),
    Augmentation(gamma=2.0),
    Augmentation(flip=0.5, gamma=1.25),
    Augmentation(degrees=20, shift=0.1),
    FULL,
]


@pytest.mark.parametrize("augmentation", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_on_the_device_the_same_is_done(augmentation, kind, channels):
    """A value may be rounded to its neighbour; of 16 bits, float32 keeps the last but a few."""
    full = int(np.iinfo(kind).max)
    images = np.random.default_rng(1).integers(0, full, (40, channels, 33, 24), kind, endpoint=True)
    draws = np.arange(1000, 1040)
    levels = torch.from_numpy(images.astype(np.float32))
    expected = augmentation(images, draws, 5).astype(np.float64)
    found = augmentation.on_device(levels, full, draws, 5).double().numpy()
    assert found.dtype == np.float64
    assert np.array_equal(found, found.round())
    assert 0 <= found.min() <= found.max() <= full
    off = np.abs(found - expected)
    if augmentation in SETTINGS[:2]:
        assert not off.any()
    elif kind is np.uint8:  # a level that gamma rounds down may come from one that the warp rounded to its neighbour
        assert off.max() <= 1 + (augmentation.gamma > 1) * 9
        assert (off > 0).mean() < 2e-3
    else:
        assert off.max() <= full * 2e-4 * max(1, augmentation.gamma)


def test_on_the_device_a_picture_does_not_depend_on_its_neighbours():
    levels = torch.from_numpy(IMAGES.astype(np.float32))
    whole = FULL.on_device(levels, 255, DRAWS, 7)
    for i in range(6):
        assert torch.equal(whole[i : i + 1], FULL.on_device(levels[i : i + 1], 255, DRAWS[i : i + 1], 7))
