"""What decisions are worth where anomalies are as rare as they are: predictive values and net benefit.

Sensitivity and specificity do not depend on how common anomalies are; everything here does, and takes the prevalence as
a number that somebody states, never from a test split, whose share of anomalies was chosen by who put it together.
"""

import math
from typing import NamedTuple


class Estimate(NamedTuple):
    """A number with its interval."""

    value: float
    low: float
    high: float

    def map(self, slope: float, intercept: float = 0.0) -> "Estimate":
        """Return intercept + slope · number; a negative slope exchanges the ends.

        Examples:
            >>> Estimate(0.75, 0.5, 1.0).map(-1, 1)  # the share that is missed, of the share that is found
            Estimate(value=0.25, low=0.0, high=0.5)
        """
        value, *ends = (intercept + slope * number for number in self)
        return Estimate(value, *sorted(ends))


def predictive_value(right: Estimate, wrong: Estimate, share: float) -> Estimate:
    """Return the probability that a call is right, share · right / (share · right + (1 - share) · wrong).

    The interval is that of the ratio wrong / right of two independent rates, from the interval of each (MOVER-R, Donner
    and Zou 2012, Statistical Methods in Medical Research 21, 347-359, eq. 6).

    Args:
        right: rate of the call among those it is right for: for the positive predictive value the sensitivity.
        wrong: its rate among the others: 1 - specificity.
        share: of those it is right for, in (0, 1): the prevalence.

    Returns:
        The probability; nan if the call is never made.

    Examples:
        >>> found, false = Estimate(0.9, 0.8, 0.95), Estimate(0.1, 0.05, 0.2)
        >>> [round(number, 2) for number in predictive_value(found, false, 0.5)]
        [0.9, 0.82, 0.95]
        >>> round(predictive_value(found, false, 0.01).value, 3)
        0.083
    """
    if right.value == 0 and wrong.value == 0:
        return Estimate(math.nan, math.nan, math.nan)
    odds = (1 - share) / share
    centre = right.value * wrong.value
    above, below = wrong.high * (2 * wrong.value - wrong.high), wrong.low * (2 * wrong.value - wrong.low)
    many, few = right.high * (2 * right.value - right.high), right.low * (2 * right.value - right.low)
    least = _over(below, centre + math.sqrt(max(0.0, centre**2 - below * many)))
    most = _over(centre + math.sqrt(max(0.0, centre**2 - above * few)), few) if right.low > 0 else math.inf
    ratio = _over(wrong.value, right.value)
    return Estimate(*(1 / (1 + odds * number) for number in (ratio, most, least)))


def total(one: Estimate, other: Estimate) -> Estimate:
    """Return the sum of two independent numbers (MOVER, Zou and Donner 2008, Statistics in Medicine 27, 1693-1702).

    Examples:
        >>> total(Estimate(3, 0, 6), Estimate(4, 0, 8))
        Estimate(value=7, low=2.0, high=12.0)
    """
    value = one.value + other.value
    low = math.hypot(one.value - one.low, other.value - other.low)
    high = math.hypot(one.high - one.value, other.high - other.value)
    return Estimate(value, value - low, value + high)


def net_benefit(sensitivity: float, specificity: float, prevalence: float, probability: float) -> float:
    """Return the net benefit of a decision per scan: sens · π - (1 - spec) · (1 - π) · p / (1 - p).

    Vickers and Elkin 2006, Medical Decision Making 26, 565-574, with sensitivity and specificity in place of counts, so
    that the prevalence can be that of another place. It needs no calibrated probabilities: p only says how much a false
    alarm weighs. Calling everything anomalous has sensitivity 1 and specificity 0; calling nothing has 0.

    Args:
        sensitivity: in [0, 1].
        specificity: in [0, 1].
        prevalence: π, in (0, 1).
        probability: p, of an anomaly, from which on one would look, in [0, 1): at .1 one finding is worth 9 false
            alarms.

    Examples:
        >>> round(net_benefit(0.9, 0.8, prevalence=0.1, probability=0.1), 3)  # .09 found; .18 false alarms at a ninth
        0.07
        >>> net_benefit(1, 0, prevalence=0.1, probability=0.1)  # looking at all is worth it up to p = prevalence
        0.0
    """
    weight = probability / (1 - probability)
    return sensitivity * prevalence - (1 - specificity) * (1 - prevalence) * weight


def _over(part: float, whole: float) -> float:
    if whole > 0:
        return part / whole
    return 0.0 if part == 0 else math.inf
