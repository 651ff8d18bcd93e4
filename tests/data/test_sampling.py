import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.data.sampling import IterationSampler, drawn
from anomaly_lab.types import Phase, Schedule

SCHEDULE = Schedule((Phase("gan", 4, (), 3), Phase("encoder", 4, (), 1)))


def test_every_pass_shows_each_element_once_in_its_own_order():
    elements = drawn(np.arange(35), seed=5, size=7).reshape(5, 7)
    assert all(sorted(one) == list(range(7)) for one in elements.tolist())
    assert len({tuple(one) for one in elements.tolist()}) == 5
    assert np.array_equal(elements[2], np.random.default_rng([5, 2]).permutation(7))


@given(st.integers(1, 9), st.lists(st.integers(0, 60), min_size=1))
def test_draw_depends_on_its_number_alone(size, numbers):
    whole = drawn(np.arange(61), 1, size)
    assert np.array_equal(drawn(np.array(numbers), 1, size), whole[numbers])


def test_draws_are_counted_through_phases_without_gap():
    sampler = IterationSampler(SCHEDULE, range(8), batch_size=2)
    draws = list(sampler)
    assert len(sampler) == len(draws) == 8
    assert [len(item) for item in draws] == [3, 3, 3, 3, 1, 1, 1, 1]
    assert np.array_equal(np.concatenate([item.ravel() for item in draws]), np.arange(32))


def test_resumed_epoch_continues_where_it_was():
    straight = list(IterationSampler(SCHEDULE, range(8), 2))
    resumed = list(IterationSampler(SCHEDULE, range(3, 8), 2))
    assert all(np.array_equal(a, b) for a, b in zip(straight[3:], resumed, strict=True))


def test_ranks_share_every_minibatch():
    alone = list(IterationSampler(SCHEDULE, range(8), 4))
    halves = [list(IterationSampler(SCHEDULE, range(8), 4, rank, 2)) for rank in (0, 1)]
    for whole, left, right in zip(alone, *halves, strict=True):
        assert np.array_equal(whole, np.concatenate([left, right], axis=1))
