"""How a GAN's health, as its run recorded it, goes with how well it detects, over the runs of a study."""

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
    "diversity": "Diversity of samples",
    "ssim": "SSIM of held-out normals",
    "reconstruction_error": "Reconstruction error of held-out normals",
    "real_above_fake": "Real above fake",
    "train_above_held_out": "Training above held-out",
    "overfitting": "Overfitting r_v",
}
OF_A_NETWORK = ("fid", "kid")  # they compare only where the same features were taken
MIN_RUNS = 4  # runs; Fisher's interval needs as many


class Relation(NamedTuple):
    """A measure against the AUROC over the runs of a data set.

    Attributes:
        title: of the measure, and of its features where it has some.
        keys: of the runs.
        value, auroc: [n].
        rho: Spearman's; nan where the measure is the same for all.
        low, high: its 95 % interval.
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
        """What it says, in words."""
        if math.isnan(self.rho):
            return f"It is the same for all {len(self.value)} runs, so it goes with nothing."
        figures = f"ρ {rate(self.rho, 2)} [{rate(self.low, 2)}, {rate(self.high, 2)}], {len(self.value)} runs"
        if self.low > 0 or self.high < 0:
            return f"The higher it is, the {'higher' if self.rho > 0 else 'lower'} the AUROC: {figures}."
        return f"It is not shown to go with the AUROC: {figures}."


def relations(findings: Findings, dataset: str) -> list[Relation]:
    """Every measure that at least MIN_RUNS runs of a data set have, in the order of MEASURES.

    Runs alike in measure and AUROC to the last digit are one training that was judged by two rules: they count once.
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
    """Spearman's rho and its 95 % interval: Fisher's z with the variance (1 + rho² / 2) / (n - 3).

    Bonett and Wright 2000, eq. 6. A perfect order, where z is infinite, counts for the interval as half of the least
    step below 1, which is 12 / (n³ - n). nan where n < 4 or one of the two is constant.
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
    """Title -> value of what a run has recorded."""
    found = {}
    for name, title in MEASURES.items():
        value = health.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found[title + (f", {health.get('features')}" if name in OF_A_NETWORK else "")] = float(value)
    return found


def _relation(title: str, points: dict[tuple[float, float], Key]) -> Relation:
    value, auroc = (list(column) for column in zip(*points, strict=True))
    return Relation(title, list(points.values()), value, auroc, *spearman(value, auroc))
