"""Calibration of class probabilities: reliability, expected calibration error, log loss and temperature.

Guo, Pleiss, Sun and Weinberger 2017, On Calibration of Modern Neural Networks (ICML). What is judged are claims: that a
case is of the class with the highest probability, if classes exclude each other, and otherwise that a case has a class,
for every class of which that is known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from anomaly_lab.metrics.classification import Targets
from anomaly_lab.metrics.ranking import Floats

BINS = 15  # of the reliability curve, of equal width, as in the publication
SMALLEST = 1e-12  # probability in a logarithm
HOTTEST = 20.0  # temperatures are searched between 1 / HOTTEST and HOTTEST


class Reliability(NamedTuple):
    """Claims in bins of their confidence; bins without a claim are left out.

    Attributes:
        claims: number of claims in each bin, [B].
        confidence: their mean confidence.
        share: the share of them that is true.
    """

    claims: NDArray[np.int64]
    confidence: Floats
    share: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and share, weighted by claims; nan without any."""
        if not len(self.claims):
            return math.nan
        return float(np.average(np.abs(self.confidence - self.share), weights=self.claims))


def claims(target: Targets, probability: Floats, exclusive: bool) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the confidence of each claim, [M] in [0, 1], and whether it is true, [M].

    Args:
        target: int8 [N, K], 1 yes, 0 no, -1 unknown.
        probability: [N, K] in [0, 1].
        exclusive: whether classes exclude each other.

    Examples:
        >>> target, probability = np.array([[0, 1]], np.int8), np.array([[0.25, 0.75]])
        >>> [claims(target, probability, exclusive)[0].tolist() for exclusive in (True, False)]
        [[0.75], [0.25, 0.75]]
    """
    if exclusive:
        rows, named = np.arange(len(target)), probability.argmax(1)
        return probability[rows, named], target[rows, named] == 1
    known = target >= 0
    return probability[known], target[known] == 1


def reliability(confidence: Floats, true: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """Sort claims into bins of equal width, each with its upper end.

    Args:
        confidence: of each claim, [M] in [0, 1].
        true: whether it is true, [M].
        bins: number of bins.

    Examples:
        >>> curve = reliability(np.array([0.9, 0.95, 0.2]), np.array([True, False, False]), bins=5)
        >>> curve.claims.tolist(), curve.share.tolist(), round(curve.error, 3)
        ([1, 2], [0.0, 0.5], 0.35)
    """
    place = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    kept = count > 0
    sums = (np.bincount(place, values, minlength=bins)[kept] for values in (confidence, true.astype(np.float64)))
    mean, share = (total / count[kept] for total in sums)
    return Reliability(count[kept], mean, share)


def log_loss(target: Targets, probability: Floats, exclusive: bool) -> float:
    """Return the mean negative log-likelihood: of the class of each case, or of everything known; nan without any.

    Arguments as in `claims`.

    Examples:
        >>> round(log_loss(np.array([[0, 1]], np.int8), np.array([[0.5, 0.5]]), exclusive=True), 4)  # log 2
        0.6931
    """
    if exclusive:
        likelihood = probability[target == 1]
    else:
        likelihood = np.where(target == 1, probability, 1 - probability)[target >= 0]
    return float(-np.log(np.maximum(likelihood, SMALLEST)).mean()) if len(likelihood) else math.nan


def tempered(probability: Floats, temperature: float, exclusive: bool) -> Floats:
    """Return the probabilities [N, K] that the logits divided by a temperature have.

    Exclusive classes are a softmax, so that a power of the probabilities is normalised anew; others are logistic.

    Args:
        probability: [N, K] in [0, 1].
        temperature: above 1 for less confidence, below 1 for more.
        exclusive: whether classes exclude each other.

    Examples:
        >>> tempered(np.array([[0.8, 0.2]]), 2.0, exclusive=True).round(4).tolist()  # sqrt(.8) : sqrt(.2) = 2 : 1
        [[0.6667, 0.3333]]
        >>> tempered(np.array([[0.8, 0.2]]), 2.0, exclusive=False).round(4).tolist()
        [[0.6667, 0.3333]]
    """
    log = np.log(np.clip(probability, SMALLEST, 1)) / temperature
    if exclusive:
        power = np.exp(log - log.max(1, keepdims=True))
        normalised: Floats = power / power.sum(1, keepdims=True)
        return normalised
    other = np.log(np.clip(1 - probability, SMALLEST, 1)) / temperature
    logistic: Floats = np.exp(log - np.logaddexp(log, other))
    return logistic


def fit_temperature(target: Targets, probability: Floats, exclusive: bool) -> float:
    """Return the temperature with the smallest log loss, within [1 / HOTTEST, HOTTEST]; nan if nothing is known.

    The log loss is convex in the inverse of the temperature, so a search between two ends finds its minimum. If every
    claim is right, there is none, and the temperature is near the lower end; if none is better than 1, it is 1.

    Arguments as in `claims`.

    Examples:
        >>> target = np.array([[0, 1]] * 3 + [[1, 0]], np.int8)  # a confidence of .9 that is right in 3 of 4 cases
        >>> temperature = fit_temperature(target, np.array([[0.1, 0.9]] * 4), exclusive=True)
        >>> round(temperature, 3), tempered(np.array([[0.1, 0.9]]), temperature, exclusive=True).round(3).tolist()
        (2.0, [[0.25, 0.75]])
    """
    if math.isnan(log_loss(target, probability, exclusive)):
        return math.nan
    found = minimize_scalar(
        lambda inverse: log_loss(target, tempered(probability, 1 / inverse, exclusive), exclusive),
        bounds=(1 / HOTTEST, HOTTEST),
        method="bounded",
        options={"xatol": 1e-8},
    )
    candidates = (1.0, 1 / HOTTEST, float(found.x), HOTTEST)
    losses = [log_loss(target, tempered(probability, 1 / inverse, exclusive), exclusive) for inverse in candidates]
    return 1 / candidates[int(np.argmin(losses))]
