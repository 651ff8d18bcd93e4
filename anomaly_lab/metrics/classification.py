"""Metrics of class probabilities: average precision, AUROC, decisions and their means over classes.

`target` [N, K] is 1 where a case has a class, 0 where it has not and -1 where that is unknown; unknown cells count
nowhere. A class without a positive, or without a negative, has no average precision and no AUROC: these are nan and no
part of a mean, because any ranking of such a class is as good as any other.

All figures follow from sums over cases. The sums are linear in the weight of each case, so that one sparse matrix gives
them for all replicates of a bootstrap at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from anomaly_lab.metrics.ranking import Floats

Targets = NDArray[np.int8]  # [N, K]: 1 yes, 0 no, -1 unknown
Calls = NDArray[np.bool_]  # [N, K]
Counts = NDArray[np.integer] | Floats  # [N, R], how often each case counts in each replicate

PER_CLASS = ("average_precision", "interpolated_average_precision", "auroc", "precision", "recall", "f1")
MEANS = {  # mean over the classes -> the figure that is averaged
    "mean_average_precision": "average_precision",
    "mean_interpolated_average_precision": "interpolated_average_precision",
    "mean_auroc": "auroc",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "macro_f1": "f1",
}


@dataclass(frozen=True)
class Judged:
    """N cases with what is known of their K classes, what a detector says of them, and what it decides.

    Attributes:
        target: int8 [N, K], 1 yes, 0 no, -1 unknown.
        probability: float64 [N, K] in [0, 1].
        called: bool [N, K], the classes each case is called; if they exclude each other, exactly one.
        exclusive: whether every case has exactly one class, of which nothing is unknown.

    Examples:
        >>> target = np.array([[1, 0], [0, 1], [0, 1]], np.int8)
        >>> probability = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> Judged(target, probability, most_probable(probability), exclusive=True).measure()["accuracy"].item()
        0.6666666666666666
    """

    target: Targets
    probability: Floats
    called: Calls
    exclusive: bool

    def measure(self, weight: Counts | None = None) -> dict[str, Floats]:
        """Compute all figures, see `Measures`, of each case once, or of each as often as `weight` [N, R] says."""
        return Measures(self)(np.ones((len(self.target), 1)) if weight is None else weight)


class Measures:
    """Computes the figures of the same cases under many weights.

    Average precision is the mean of the precision at each positive, all cases of at least its probability counted, and
    unknown ones skipped (as in the public code of Miao et al. 2019, which lets the order of the list decide between
    equal probabilities). The interpolated one takes the highest precision at this recall or a higher one (Everingham et
    al. 2015, The Pascal Visual Object Classes Challenge: A Retrospective, §3.4.1; VOC 2010 and later).

    Args:
        judged: the cases.

    Attributes:
        ranked: bool [K], classes with a positive and a negative, over which average precision and AUROC are averaged.
        present: bool [K], classes with a positive, over which the others are averaged.

    Examples:
        >>> target, probability = np.array([[1], [0], [1], [-1]], np.int8), np.array([[0.9], [0.8], [0.4], [0.85]])
        >>> figures = Measures(Judged(target, probability, probability > 0.5, exclusive=False))(np.ones((4, 1)))
        >>> round(figures["average_precision"].item(), 4), figures["f1"].item()  # (1/1 + 2/3) / 2; 1 hit, 1 false alarm
        (0.8333, 0.5)
    """

    def __init__(self, judged: Judged) -> None:
        target = judged.target
        self._exclusive, self._classes = judged.exclusive, target.shape[1]
        self.present = (target == 1).any(0)
        self.ranked = self.present & (target == 0).any(0)
        self._sums = _Sums(len(target))
        self._ranks = [_Ranks(self._sums, target[:, k], judged.probability[:, k]) for k in range(self._classes)]
        self._hits, self._alarms, self._misses = (
            self._sums.of_classes(cells)
            for cells in (
                judged.called & (target == 1), judged.called & (target == 0), ~judged.called & (target == 1),
            )
        )  # fmt: skip
        self._cells = self._sums.of_values(np.ones(len(target)) if judged.exclusive else (target >= 0).sum(1))
        self._right = self._sums.of_values(((target == 1) & judged.called).any(1))
        squared = np.where(target >= 0, np.square(judged.probability - (target == 1)), 0).sum(1)
        self._squared = self._sums.of_values(squared)

    def __call__(self, weight: Counts) -> dict[str, Floats]:
        """Return the figures: those of PER_CLASS [K, R]; MEANS, brier and, for exclusive classes, accuracy [R].

        The Brier score is the squared difference of probability and truth: of exclusive classes summed over the classes
        (Brier 1950), in [0, 2]; else the mean over what is known, in [0, 1]. What is undefined is nan: the average
        precision and the AUROC of a class that a replicate lost, and its recall and F1; precision without a call is 0.

        Args:
            weight: how often each case counts, [N, R].
        """
        sums = self._sums(weight)
        ranked = [ranks(sums) for ranks in self._ranks]
        hits, alarms, misses = sums[self._hits], sums[self._alarms], sums[self._misses]
        lost = hits + misses == 0
        figures = {name: np.stack([of_class[name] for of_class in ranked]) for name in PER_CLASS[:3]}
        figures["precision"] = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits + alarms > 0)
        figures["recall"] = np.divide(hits, hits + misses, out=np.full_like(hits, np.nan), where=~lost)
        figures["f1"] = np.divide(2 * hits, 2 * hits + alarms + misses, out=np.full_like(hits, np.nan), where=~lost)
        for name, averaged in MEANS.items():
            counted = self.ranked if averaged in PER_CLASS[:3] else self.present
            figures[name] = figures[averaged][counted].mean(0) if counted.any() else np.full(weight.shape[1], np.nan)
        total = sums[self._cells]
        figures["brier"] = np.divide(sums[self._squared], total, out=np.full_like(total, np.nan), where=total > 0)
        if self._exclusive:
            figures["accuracy"] = np.divide(sums[self._right], total, out=np.full_like(total, np.nan), where=total > 0)
        return figures


class _Sums:
    """Rows of values by case, which are summed under weights all at once."""

    def __init__(self, cases: int) -> None:
        self._cases = cases
        self._parts: list[sparse.csr_array] = []
        self._matrix: sparse.csr_array | None = None
        self._length = 0

    def add(self, row: NDArray[np.intp], case: NDArray[np.intp], value: NDArray[np.number], rows: int) -> slice:
        """Add `rows` sums, to the given ones of which the cases contribute their values; return where they stand."""
        self._parts.append(sparse.csr_array((value.astype(np.float64), (row, case)), (rows, self._cases)))
        self._length += rows
        return slice(self._length - rows, self._length)

    def of_classes(self, cells: Calls) -> slice:
        """Add the sums of cells [N, K], one a class."""
        case, row = np.nonzero(cells)
        return self.add(row, case, np.ones(len(row)), cells.shape[1])

    def of_values(self, values: NDArray[np.generic]) -> int:
        """Add the sum of values [N]."""
        (case,) = np.nonzero(values)
        return int(self.add(np.zeros(len(case), np.intp), case, values[case].astype(np.float64), 1).start)

    def __call__(self, weight: Counts) -> Floats:
        """Return all sums under weights [N, R]."""
        if self._matrix is None:
            self._matrix = sparse.csr_array(sparse.vstack(self._parts))
        product: Floats = self._matrix @ np.asarray(weight, np.float64)
        return product


class _Ranks:
    """Average precision and AUROC of a class, from sums between the probabilities of its positives."""

    def __init__(self, sums: _Sums, target: NDArray[np.int8], probability: Floats) -> None:
        (positive,), (negative,) = np.nonzero(target == 1), np.nonzero(target == 0)
        depths, depth = np.unique(-probability[positive], return_inverse=True)  # the highest probability first
        below, at_least = (np.searchsorted(depths, -probability[negative], side) for side in ("left", "right"))
        self._found = sums.add(depth, positive, np.ones(len(positive)), len(depths))
        # bin 2j: negatives between the positives' probabilities j - 1 and j; bin 2j + 1: those that tie with j
        self._between = sums.add(below + at_least, negative, np.ones(len(negative)), 2 * len(depths) + 1)

    def __call__(self, sums: Floats) -> dict[str, Floats]:
        found, between = sums[self._found], np.cumsum(sums[self._between], axis=0)
        above, reached = between[:-1:2], between[1::2]  # negatives ranked above a positive, and as high or above
        detected = np.cumsum(found, axis=0)
        positives, negatives = found.sum(0), between[-1]
        precision = np.divide(detected, detected + reached, out=np.zeros_like(detected), where=detected + reached > 0)
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        both = (positives > 0) & (negatives > 0)
        undefined = np.full_like(positives, np.nan)
        totals = {
            "average_precision": (found * precision).sum(0),
            "interpolated_average_precision": (found * envelope).sum(0),
            "auroc": positives - (found * (above + reached)).sum(0) / np.maximum(2 * negatives, 1),
        }
        return {name: np.divide(total, positives, out=undefined.copy(), where=both) for name, total in totals.items()}


def most_probable(probability: Floats) -> Calls:
    """Return decisions [N, K] for the class of the highest probability, of equal ones the first.

    Examples:
        >>> most_probable(np.array([[0.2, 0.8], [0.5, 0.5]])).tolist()
        [[False, True], [True, False]]
    """
    called: Calls = np.eye(probability.shape[1], dtype=bool)[probability.argmax(1)]
    return called


def confusion(target: Targets, called: Calls) -> NDArray[np.int64]:
    """Count the cases of each class (rows) that are called each class (columns), [K, K]; classes exclude each other.

    Examples:
        >>> confusion(np.array([[1, 0], [0, 1], [0, 1]]), np.array([[1, 0], [1, 0], [0, 1]], bool)).tolist()
        [[1, 0], [1, 1]]
    """
    counts: NDArray[np.int64] = (target == 1).T.astype(np.int64) @ called.astype(np.int64)
    return counts


def unweighted(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> dict[str, Floats]:
    """Return precision, recall and F1 as means of those of both classes, anomalous and normal, whatever their numbers.

    A share of nothing is 0. With one normal in a thousand cases, calling everything anomalous has an F1 near .5.

    Args:
        tp: true positives; (weighted) counts of one shape.
        fp: false positives.
        tn: true negatives.
        fn: false negatives.

    Examples:
        >>> counts = (np.array([count]) for count in (10.0, 0.0, 90.0, 10.0))
        >>> {name: round(value.item(), 3) for name, value in unweighted(*counts).items()}
        {'precision': 0.95, 'recall': 0.75, 'f1': 0.807}
    """

    def shares(hits: Floats, alarms: Floats, misses: Floats) -> tuple[Floats, Floats, Floats]:
        called, there, both = hits + alarms, hits + misses, 2 * hits + alarms + misses
        one, two, three = (
            np.divide(part, whole, out=np.zeros_like(hits), where=whole > 0)
            for part, whole in ((hits, called), (hits, there), (2 * hits, both))
        )
        return one, two, three

    pairs = zip(shares(tp, fp, fn), shares(tn, fn, fp), strict=True)
    return {name: (a + b) / 2 for name, (a, b) in zip(("precision", "recall", "f1"), pairs, strict=True)}
