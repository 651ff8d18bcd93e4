import numpy as np
import pytest

from anomaly_lab.data.preprocessing.volume_augmentation import VolumeAugmentation

VOLUMES = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 10, 12), np.uint8)
DRAWS = np.arange(100, 104)
FULL = VolumeAugmentation(flip=0.5, degrees=10, shift=0.05, scale=1.1, gamma=1.25)


def centres(volumes):
    """Centre of mass of each volume [B, 1, D, H, W], in voxels, [B, 3]."""
    mass = volumes[:, 0].astype(float)
    total = mass.sum((1, 2, 3))
    return np.stack([(mass * axis).sum((1, 2, 3)) / total for axis in np.indices(mass.shape[1:])], axis=1)


def dots(count, place, sides=(17, 17, 17)):
    volumes = np.zeros((count, 1, *sides), np.uint8)
    volumes[(slice(None), 0, *place)] = 255
    return volumes


def test_nothing_asked_nothing_changed():
    assert np.array_equal(VolumeAugmentation()(VOLUMES, DRAWS, 0), VOLUMES)


@pytest.mark.parametrize("axis", range(3))
def test_certain_flip_is_a_mirror_of_its_axis_alone(axis):
    flip = tuple(float(axis == a) for a in range(3))
    assert np.array_equal(VolumeAugmentation(flip=flip)(VOLUMES, DRAWS, 0), np.flip(VOLUMES, 2 + axis))


def test_one_number_flips_every_axis_on_its_own():
    draws = np.arange(400)
    changed = VolumeAugmentation(flip=0.5)(dots(400, (0, 0, 0), (2, 2, 2)), draws, 0)
    ends = centres(changed)
    assert set(np.unique(ends)) == {0, 1}
    assert np.abs(ends.mean(0) - 0.5).max() < 0.1
    assert np.abs(np.corrcoef(ends.T) - np.eye(3)).max() < 0.2


def test_change_depends_on_seed_and_draw_alone():
    together = FULL(VOLUMES, DRAWS, 7)
    alone = np.concatenate([FULL(VOLUMES[i : i + 1], DRAWS[i : i + 1], 7) for i in reversed(range(4))])[::-1]
    assert together.dtype == np.uint8
    assert np.array_equal(together, alone)
    assert not np.array_equal(together, FULL(VOLUMES, DRAWS, 8))
    assert not np.array_equal(together, FULL(VOLUMES, DRAWS + 1, 7))


def test_global_random_numbers_are_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    FULL(VOLUMES, DRAWS, 7)
    assert np.array_equal(before, np.random.get_state()[1])


def test_shift_stays_within_its_bound_and_lets_black_in():
    moved = VolumeAugmentation(shift=(0.2, 0.0, 0.2))(dots(30, (8, 8, 8)), np.arange(30), 0)
    off = centres(moved) - 8
    assert np.abs(off[:, 1]).max() < 0.01
    assert np.abs(off).max() <= 0.2 * 17 + 0.1
    assert off[:, [0, 2]].std(0).min() > 1
    white = VolumeAugmentation(shift=0.2)(np.full((30, 1, 9, 9, 9), 255, np.uint8), np.arange(30), 0)
    assert set(np.unique(white[:, 0, 4, 4, [0, -1]])) >= {0, 255}


def test_rotation_about_one_axis_keeps_the_distance_to_it():
    turned = VolumeAugmentation(degrees=(40, 0, 0))(dots(20, (4, 8, 14)), np.arange(20), 0)
    off = centres(turned) - 8
    assert np.abs(off[:, 0] + 4).max() < 0.05
    angles = np.degrees(np.arctan2(off[:, 1], off[:, 2]))
    assert np.abs(np.hypot(off[:, 1], off[:, 2]) - 6).max() < 0.3
    assert 20 < np.abs(angles).max() <= 41


def test_scale_keeps_within_its_range():
    far = centres(VolumeAugmentation(scale=1.5)(dots(40, (8, 8, 12)), np.arange(40), 0))[:, 2] - 8
    assert 4 / 1.5 - 0.2 <= far.min() < 3.2
    assert 5.2 < far.max() <= 6.2


def test_gamma_keeps_black_and_white_and_moves_grey():
    ends = np.zeros((20, 1, 4, 4, 4), np.uint8)
    ends[..., 2:] = 255
    change = VolumeAugmentation(gamma=2.0)
    assert np.array_equal(change(ends, np.arange(20), 0), ends)
    grey = change(np.full((20, 1, 4, 4, 4), 128, np.uint8), np.arange(20), 0)
    assert 64 <= grey.min() < 110
    assert 150 < grey.max() <= 181


def test_sixteen_bits_behave_like_eight():
    deep = FULL(VOLUMES.astype(np.uint16) * 257, DRAWS, 0)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - FULL(VOLUMES, DRAWS, 0)).max() <= 2


WRONG = [{"flip": 2}, {"flip": (0.5, 0.5)}, {"degrees": -1}, {"shift": (0, 0, 1)}, {"scale": 0.9}, {"gamma": 0.5}]


@pytest.mark.parametrize("wrong", WRONG)
def test_value_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"^{next(iter(wrong))}=.*: takes a number in"):
        VolumeAugmentation(**wrong)
