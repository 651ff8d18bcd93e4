"""Does what a method finds of planted lesions foretell what it finds in patients? Over the methods of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anomaly_lab.studies.findings import Findings

Floats = NDArray[np.float64]
FEWEST = 4  # methods of a correlation
REPLICATES = 2000


class Foreseen(NamedTuple):
    """The methods on a data set by both measures.

    Attributes:
        names: of rows and baselines, [M].
        planted: AUROC of lesions planted on validation normals, the mean over the repeats, [M].
        auroc: of the test split, the mean over the repeats, [M].
        rho: Spearman's correlation; NaN of fewer than FEWEST methods.
    """

    names: list[str]
    planted: list[float]
    auroc: list[float]
    rho: float


class Pooled(NamedTuple):
    """The mean of Spearman's correlation over data sets, for new methods.

    Attributes:
        rho: the mean.
        low, high: 95 % interval by redrawing methods, the same for all data sets.
        methods, datasets: how many.
    """

    rho: float
    low: float
    high: float
    methods: int
    datasets: int


def foreseen(findings: Findings, dataset: str) -> Foreseen | None:
    """Return what was foreseen on a data set, of the methods whose runs measured it; None without any.

    Examples:
        >>> from pathlib import Path
        >>> from anomaly_lab.studies.plan import DataSet, Key, Row, Study
        >>> from anomaly_lab.studies.results import Result
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={n: Row(n, n) for n in "abcd"})
        >>> ids, label = np.arange(8).astype(str), np.array([0, 0, 0, 0, 1, 1, 1, 1])
        >>> runs = {}
        >>> for k, name in enumerate("abcd"):  # a ranks all anomalies first, d misses three
        ...     score = label * np.where(np.arange(8) < 8 - k, 1.0, -1.0)
        ...     measured = {"planted": {"detector": {"auroc": 0.9 - k / 10}}}
        ...     runs[Key(name, "set", 0)] = Result(Path("run"), ids, ids, label, score, {}, {}, measured)
        >>> foreseen(Findings(study, runs), "set").rho
        1.0
    """
    if findings.study.metric != "auroc":  # what is planted is found by AUROC
        return None
    points = {}
    for line in findings.lines:
        cell = line.cells[dataset]
        runs = [run for key, run in findings.results.items() if key.dataset == dataset]
        key = line.name if line.is_baseline else "detector"
        if not line.is_baseline:
            runs = list(findings.of(line.name, dataset).values())
        values = [((run.metrics.get("planted") or {}).get(key) or {}).get("auroc") for run in runs]
        known = [value for value in values if value is not None]
        if known and math.isfinite(cell.summary.mean):
            points[line.name] = (float(np.mean(known)), cell.summary.mean)
    if not points:
        return None
    planted, auroc = (list(column) for column in zip(*points.values(), strict=True))
    return Foreseen(list(points), planted, auroc, _rho(planted, auroc))


def pooled(found: Mapping[str, Foreseen]) -> Pooled | None:
    """Return the mean correlation over data sets, over the methods that all of them have; None of too few methods.

    Examples:
        >>> one = Foreseen(list("abcd"), [1, 2, 3, 4], [1, 2, 3, 4], 1.0)
        >>> round(pooled({"a": one, "b": one._replace(auroc=[1, 2, 4, 3])}).rho, 3)
        0.9
    """
    if not found:
        return None
    names = [name for name in next(iter(found.values())).names if all(name in each.names for each in found.values())]
    if len(names) < FEWEST:
        return None
    pairs = []
    for each in found.values():
        place = [each.names.index(name) for name in names]
        pairs.append((np.array(each.planted)[place], np.array(each.auroc)[place]))
    drawn = np.random.default_rng(0).integers(len(names), size=(REPLICATES, len(names)))
    replicated = np.mean([_rhos(planted[drawn], auroc[drawn]) for planted, auroc in pairs], axis=0)
    known = replicated[np.isfinite(replicated)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (math.nan, math.nan)
    rho = float(np.mean([_rho(*pair) for pair in pairs]))
    return Pooled(rho, float(low), float(high), len(names), len(pairs))


def _rho(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> float:
    """Return Spearman's correlation of n values each; NaN if they are too few, or one of the two is constant."""
    return math.nan if len(x) < FEWEST else float(_rhos(np.array(x)[None], np.array(y)[None])[0])


def _rhos(x: Floats, y: Floats) -> Floats:
    """Return Spearman's correlation of each row of x with that of y, [R, n]; NaN where one of the two is constant."""
    ranks = [stats.rankdata(values, axis=1) for values in (x, y)]
    a, b = (each - each.mean(1, keepdims=True) for each in ranks)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    of_rows: Floats = np.divide((a * b).sum(1), scale, out=np.full(len(x), np.nan), where=scale > 0)
    return of_rows
