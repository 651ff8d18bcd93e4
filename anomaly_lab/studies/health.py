"""Correlate the recorded health of GANs (see `callbacks.health`) with their AUROC over the runs of a study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from anomaly_lab.reports.charts import rate
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.plan import Key

MEASURES = {
    "fid": "FID",
    "kid": "KID",
    "diversity": "Diversity of generated images",
    "ssim": "SSIM of validation normals",
    "reconstruction_error": "Reconstruction error of validation normals",
    "real_above_fake": "Real above generated",
    "train_above_held_out": "Training above validation",
    "overfitting": "Overfitting r_v",
}
FEATURE_MEASURES = ("fid", "kid")  # comparable only between runs that used the same features
MIN_RUNS = 4  # Fisher's interval needs four points


class Relation(NamedTuple):
    """Correlation of a health measure with the AUROC over the runs on a data set.

    Attributes:
        title: of the measure, with the features that it was computed on, if any.
        keys: of the n runs.
        value, auroc: measure and AUROC of each run.
        rho: Spearman's correlation; NaN if the measure is the same for all runs.
        low, high: its 95 % interval.

    Examples:
        >>> value, auroc = [1.0, 2.0, 3.0, 4.0], [0.6, 0.7, 0.65, 0.8]
        >>> Relation("FID", [], value, auroc, *spearman(value, auroc)).sentence
        'No correlation with the AUROC is shown: ρ .80 [−.82, 1.00], 4 runs.'
    """

    title: str
    keys: list[Key]
    value: list[float]
    auroc: list[float]
    rho: float
    low: float
    high: float

    @property
    def sentence(self) -> str:
        """The correlation as a sentence."""
        if math.isnan(self.rho):
            return f"It is the same for all {len(self.value)} runs, so there is no correlation."
        figures = f"ρ {rate(self.rho, 2)} [{rate(self.low, 2)}, {rate(self.high, 2)}], {len(self.value)} runs"
        if self.low > 0 or self.high < 0:
            return f"The higher it is, the {'higher' if self.rho > 0 else 'lower'} the AUROC: {figures}."
        return f"No correlation with the AUROC is shown: {figures}."


def relations(findings: Findings, dataset: str) -> list[Relation]:
    """Correlate each measure that at least MIN_RUNS runs have with their AUROC, in the order of MEASURES.

    Runs whose measure and AUROC are equal to the last digit are one training evaluated with two threshold rules; they
    count once.

    Args:
        findings: results of the study.
        dataset: name of a data set of the study.

    Examples:
        >>> from pathlib import Path
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> from anomaly_lab.studies.results import Result
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"gan": Row("GAN", "gan_toy")})
        >>> ids, label = np.arange(8).astype(str), np.array([0, 0, 0, 0, 1, 1, 1, 1])
        >>> runs = {}
        >>> for seed in range(4):  # run number `seed` ranks so many anomalies last
        ...     score = label * np.where(np.arange(8) < 8 - seed, 1.0, -1.0)
        ...     health = {"health": {"diversity": 1.0 - seed / 10}}
        ...     runs[Key("gan", "set", seed)] = Result(Path("run"), ids, ids, label, score, {}, health)
        >>> [(relation.title, relation.rho) for relation in relations(Findings(study, runs), "set")]
        [('Diversity of generated images', 1.0)]
    """
    points: dict[str, dict[tuple[float, float], Key]] = {}
    for key, result in findings.results.items():
        if key.dataset == dataset and key.row in findings.rows and math.isfinite(auroc := result.figure()):
            for title, value in _measured(result.facts.get("health") or {}).items():
                points.setdefault(title, {}).setdefault((value, auroc), key)
    order = list(MEASURES.values())
    titles = sorted(points, key=lambda title: order.index(title.partition(",")[0]))
    return [_relation(title, points[title]) for title in titles if len(points[title]) >= MIN_RUNS]


def spearman(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Compute Spearman's rho and its 95 % interval: Fisher's z with the variance (1 + rho² / 2) / (n - 3).

    Bonett and Wright 2000, eq. 6. For |rho| = 1, where z is infinite, the interval is computed with half the smallest
    possible step below 1, which is 12 / (n³ - n).

    Args:
        x, y: n values each.

    Returns:
        rho and the ends of its interval; NaN if n < 4 or one of the two is constant.

    Examples:
        >>> rho, low, high = spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
        >>> round(rho, 2), round(low, 2), round(high, 2)
        (0.8, -0.46, 0.99)
    """
    n = len(x)
    if n < MIN_RUNS or len(set(x)) == 1 or len(set(y)) == 1:
        return math.nan, math.nan, math.nan
    rho = float(stats.spearmanr(x, y).statistic)
    inner = 1 - 6 / (n**3 - n)
    z = math.atanh(min(max(rho, -inner), inner))
    half = float(stats.norm.ppf(0.975)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = (float(np.tanh(end)) for end in (z - half, z + half))
    return rho, min(low, rho), max(high, rho)


def _measured(health: dict[str, Any]) -> dict[str, float]:
    """Return the finite measures of a run by title."""
    measured = {}
    for name, title in MEASURES.items():
        value = health.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            measured[title + (f", {health.get('features')}" if name in FEATURE_MEASURES else "")] = float(value)
    return measured


def _relation(title: str, points: dict[tuple[float, float], Key]) -> Relation:
    value, auroc = (list(column) for column in zip(*points, strict=True))
    return Relation(title, list(points.values()), value, auroc, *spearman(value, auroc))
