"""Read the results of a run, and find the test cases that two runs share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.record import read_metrics, read_provenance
from anomaly_lab.metrics import ranking
from anomaly_lab.metrics.comparison import DeLong, delong

METRICS = {
    "auroc": ("AUROC", ranking.auroc),
    "average_precision": ("Average precision", ranking.average_precision),
    "sensitivity_at_95_specificity": ("Sensitivity at 95 % specificity", ranking.sensitivity_at_specificity),
}
RENAMED_RULES = {"quantile of held-out normals": "quantile of validation normals"}  # as older runs recorded them


@dataclass(frozen=True)
class Result:
    """Results of one run on its test split.

    Attributes:
        run: the run folder.
        id: ids of the test cases, [N].
        patient: patient of each case, [N].
        label: [N], 0 normal, 1 anomalous.
        score: raw scores, [N].
        baselines: name -> scores of a baseline, [N].
        facts: content of provenance.json.
        metrics: content of metrics.json; empty where there is none.

    Examples:
        >>> ids, label = np.array(["a", "b", "c"]), np.array([0, 1, 1])
        >>> result = Result(Path("run"), ids, ids, label, np.array([0.2, 0.1, 0.9]), {}, {"seconds": {"gan": 60.0}})
        >>> result.figure("auroc"), result.seconds
        (0.5, 60.0)
    """

    run: Path
    id: np.ndarray
    patient: np.ndarray
    label: ranking.Labels
    score: ranking.Floats
    baselines: dict[str, ranking.Floats]
    facts: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    _known: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def read(cls, run: Path) -> Result:
        """Read the folder of a finished run.

        Raises:
            UserError: its scores.csv is missing or invalid, or another file is damaged.
        """
        scores = Scores.read(run / "scores.csv")
        test = scores.of("test")
        baselines = {name: values[test] for name, values in scores.baselines.items()}
        facts, metrics = read_provenance(run), read_metrics(run)
        id, patient = np.array(scores.id)[test], np.array(scores.patient)[test]
        return cls(run, id, patient, scores.label[test], scores.score[test], baselines, facts, metrics)

    @property
    def caveats(self) -> list[str]:
        """Warnings that a reader must know before the numbers, as recorded by the run."""
        return list((self.facts.get("detector") or {}).get("caveats") or [])

    @property
    def marked(self) -> bool:
        """Whether its numbers need a warning: it has caveats or used the synthetic twin."""
        return bool(self.caveats) or self.facts.get("source") == "twin"

    @property
    def threshold(self) -> float:
        """The run's threshold: cases with higher scores are called anomalous; NaN without one."""
        value = (self.metrics.get("threshold") or {}).get("value")
        return math.nan if value is None else float(value)

    @property
    def rule(self) -> str:
        """How the threshold was set."""
        rule = str((self.metrics.get("threshold") or {}).get("rule") or "")
        return RENAMED_RULES.get(rule, rule)

    @property
    def code(self) -> str:
        """Fingerprint of the code that trained and scored the run."""
        code = self.facts.get("code", "")
        return str(code["training"] if isinstance(code, dict) else code)

    def evaluated_as(self, figures: dict[str, Any], rule: str = "") -> Result:
        """Return the same test split with other metrics: those of a baseline or a trivial rule.

        Args:
            figures: metrics in the form of metrics.json's `detector`.
            rule: how the threshold was set.
        """
        return replace(self, metrics={"detector": figures, "threshold": {"rule": rule}}, facts={}, baselines={})

    def figure(self, metric: str = "auroc") -> float:
        """Return a metric of METRICS, computed from the scores."""
        if metric not in self._known:
            self._known[metric] = METRICS[metric][1](self.label, self.score)
        return self._known[metric]

    @property
    def seconds(self) -> float | None:
        """Training time in seconds, without a phase taken from another run; None if not recorded."""
        seconds: dict[str, float] = self.facts.get("seconds") or {}
        return sum(seconds.values()) if seconds else None

    @property
    def memory(self) -> float | None:
        """Peak memory in GB, of the GPU if there is one; None if not recorded."""
        peak = self.facts.get("peak_gb") or {}
        return peak.get("gpu") or peak.get("ram")


def within_split(a: Result, b: Result) -> tuple[int, DeLong]:
    """Compare two runs by DeLong's test on the test cases that both evaluated.

    Returns:
        Number of these cases, and the test; its figures are NaN without any case.

    Examples:
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> a = Result(Path("a"), ids, ids, label, np.array([0.1, 0.2, 0.3, 0.4]), {}, {})
        >>> b = Result(Path("b"), ids[1:], ids[1:], label[1:], np.array([0.5, 0.4, 0.9]), {}, {})
        >>> cases, test = within_split(a, b)
        >>> cases, test.a, test.b
        (3, 1.0, 0.5)
    """
    in_a, in_b = in_common(a, b)
    if not len(in_a):
        return 0, DeLong(*[math.nan] * 5)
    return len(in_a), delong(a.label[in_a], a.score[in_a], b.score[in_b], a.patient[in_a])


def in_common(a: Result, b: Result) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices in `a` and in `b` of the test cases that both evaluated; empty if their labels disagree.

    Examples:
        >>> label, score = np.array([1, 1]), np.array([0.1, 0.9])
        >>> ids = np.array(["x", "y"]), np.array(["y", "z"])
        >>> a, b = (Result(Path("run"), id, id, label, score, {}, {}) for id in ids)
        >>> [indices.tolist() for indices in in_common(a, b)]
        [[1], [0]]
    """
    _, in_a, in_b = np.intersect1d(a.id, b.id, return_indices=True)
    agreed = np.array_equal(a.label[in_a], b.label[in_b])
    return (in_a, in_b) if agreed else (in_a[:0], in_b[:0])
