"""Predictive values and net benefit: hand tables, coverage of the intervals, what must hold for any numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly_lab.metrics.decisions import Estimate, net_benefit, predictive_value, total

rates = st.lists(st.integers(0, 1000).map(lambda n: n / 1000), min_size=3, max_size=3).map(
    lambda three: Estimate(*(sorted(three)[i] for i in (1, 0, 2)))
)


def wilson(hits: int, n: int) -> Estimate:
    """Wilson's interval of a share."""
    z, share = 1.959964, hits / n
    centre = (share + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n) / (1 + z * z / n)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def test_bayes_by_counting() -> None:
    # 10 000 scans, 500 anomalous: 400 found, 950 of 9500 normals alarm
    ppv = predictive_value(Estimate(0.8, 0.8, 0.8), Estimate(0.1, 0.1, 0.1), 0.05)
    assert list(ppv) == pytest.approx([400 / 1350] * 3)
    npv = predictive_value(Estimate(0.9, 0.9, 0.9), Estimate(0.2, 0.2, 0.2), 0.95)
    assert npv.value == pytest.approx(8550 / 8650)


@given(rates, rates, st.floats(0.001, 0.999))
def test_a_predictive_value_lies_in_its_interval(right: Estimate, wrong: Estimate, share: float) -> None:
    found = predictive_value(right, wrong, share)
    if math.isnan(found.value):
        assert right.value == wrong.value == 0
    else:
        assert 0 <= found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9
        assert found.high <= 1


def test_a_call_that_was_never_made_has_no_predictive_value() -> None:
    never = Estimate(0.0, 0.0, 0.1)
    assert math.isnan(predictive_value(never, never, 0.1).value)


def test_without_a_false_alarm_the_interval_still_reaches_down() -> None:
    found = predictive_value(Estimate(1.0, 0.9, 1.0), Estimate(0.0, 0.0, 0.1), 0.05)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low < 0.4


@pytest.mark.parametrize(("sensitivity", "specificity", "prevalence"), [(0.8, 0.9, 0.05), (0.5, 0.95, 0.01)])
def test_intervals_cover(sensitivity: float, specificity: float, prevalence: float) -> None:
    random, covered = np.random.default_rng(0), 0
    found, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    for _ in range(1000):
        right = wilson(int(random.binomial(100, sensitivity)), 100)
        wrong = wilson(int(random.binomial(50, specificity)), 50).map(-1, 1)
        low, high = predictive_value(right, wrong, prevalence)[1:]
        covered += low <= found / (found + false) <= high
    assert 0.93 <= covered / 1000 <= 0.985


def test_independent_numbers_add_up_like_errors() -> None:
    assert total(Estimate(3, 2, 5), Estimate(0, 0, 0)) == Estimate(3, 2.0, 5.0)
    assert total(Estimate(1, 0, 2), Estimate(1, 0, 2)).high == pytest.approx(2 + math.sqrt(2))


def test_net_benefit_by_counting() -> None:
    # of 1000 scans 100 anomalous: 90 found, 180 false alarms, each at a quarter of a finding (p = .2)
    assert net_benefit(0.9, 0.8, 0.1, 0.2) == pytest.approx((90 - 180 / 4) / 1000)
    assert net_benefit(0, 1, 0.1, 0.2) == 0


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 0.99))
def test_a_decision_is_worth_it_up_to_its_predictive_value(
    sensitivity: float, specificity: float, share: float
) -> None:
    found, false = sensitivity * share, (1 - specificity) * (1 - share)
    if found > 1e-6 and false > 1e-6:
        assert net_benefit(sensitivity, specificity, share, found / (found + false)) == pytest.approx(0, abs=1e-9)
