"""Named random streams: none meets another, and their numbers stay what they were."""

import itertools
from typing import get_args

import numpy as np
import pytest

from anomaly_lab.data.splitting.streams import Stream, stream

NUMBERED = ("limits", "training order")  # the latter meets the others, see there


def test_no_two_streams_share_numbers():
    drawn = {
        name: stream(7, name).integers(2**62, size=4).tolist() for name in get_args(Stream) if name not in NUMBERED
    }
    drawn |= {f"limits {i}": stream(7, "limits", i).integers(2**62, size=4).tolist() for i in range(4)}
    assert not [pair for pair in itertools.combinations(drawn, 2) if set(drawn[pair[0]]) & set(drawn[pair[1]])]


@pytest.mark.parametrize("name", get_args(Stream))
def test_same_seed_same_numbers_and_another_others(name: Stream):
    one, again, other = (stream(seed, name).permutation(20).tolist() for seed in (3, 3, 4))
    assert one == again != other


def test_splits_of_older_runs_are_drawn_again():
    assert np.array_equal(stream(3, "split").permutation(9), np.random.default_rng(3).permutation(9))
    assert np.array_equal(stream(3, "limits", 1).permutation(9), np.random.default_rng([3, 3, 1]).permutation(9))
