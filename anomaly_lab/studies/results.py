"""What a run of a study left behind, and the cases that two of them share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.run_folder import in_current_words, read_json
from anomaly_lab.metrics import ranking
from anomaly_lab.metrics.comparison import DeLong, delong

METRICS = {
    "auroc": ("AUROC", ranking.auroc),
    "average_precision": ("Average precision", ranking.average_precision),
    "sensitivity_at_95_specificity": ("Sensitivity at 95 % specificity", ranking.sensitivity_at_specificity),
}


@dataclass(frozen=True)
class Result:
    """The record of one run, its test split alone.

    Attributes:
        run: folder.
        id: [N], of the cases.
        patient: [N], whose they are.
        label: [N].
        score: [N], raw.
        baselines: name -> [N], of methods without training.
        facts: provenance.json.
        metrics: metrics.json; empty where there is none.
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
        """Read a finished run.

        Raises:
            UserError: its scores.csv is missing or broken.
        """
        scores = Scores.read(run / "scores.csv")
        test = scores.of("test")
        baselines = {name: values[test] for name, values in scores.baselines.items()}
        facts, metrics = read_json(run / "provenance.json"), in_current_words(read_json(run / "metrics.json"))
        id, patient = np.array(scores.id)[test], np.array(scores.patient)[test]
        return cls(run, id, patient, scores.label[test], scores.score[test], baselines, facts, metrics)

    @property
    def caveats(self) -> list[str]:
        """What the detector says of itself, for a reader to know before its numbers."""
        return list((self.facts.get("detector") or {}).get("caveats") or [])

    @property
    def marked(self) -> bool:
        """Whether its numbers are not what they seem: a caveat, or generated pictures."""
        return bool(self.caveats) or self.facts.get("source") == "twin"

    @property
    def threshold(self) -> float:
        """The run's own, above which a case is called anomalous; nan where it has none."""
        value = (self.metrics.get("threshold") or {}).get("value")
        return math.nan if value is None else float(value)

    @property
    def rule(self) -> str:
        """What drew the threshold."""
        return str((self.metrics.get("threshold") or {}).get("rule") or "")

    @property
    def code(self) -> str:
        """Fingerprint of the code that trained and scored it."""
        code = self.facts.get("code", "")
        return str(code["training"] if isinstance(code, dict) else code)

    def evaluated_as(self, figures: dict[str, Any], rule: str = "") -> Result:
        """Its test split with the figures of something else than its detector: a floor, a trivial rule."""
        return replace(self, metrics={"detector": figures, "threshold": {"rule": rule}}, facts={}, baselines={})

    def figure(self, metric: str = "auroc") -> float:
        """One of METRICS."""
        if metric not in self._known:
            self._known[metric] = METRICS[metric][1](self.label, self.score)
        return self._known[metric]

    @property
    def seconds(self) -> float | None:
        """Of its own training; None where the record does not say."""
        seconds: dict[str, float] = self.facts.get("seconds") or {}
        return sum(seconds.values()) if seconds else None

    @property
    def memory(self) -> float | None:
        """Peak in GB, the GPU's where there is one."""
        peak = self.facts.get("peak_gb") or {}
        return peak.get("gpu") or peak.get("ram")


def within_split(a: Result, b: Result) -> tuple[int, DeLong]:
    """DeLong's test on the cases that two runs have both judged, and how many these are."""
    in_a, in_b = in_common(a, b)
    if not len(in_a):
        return 0, DeLong(*[math.nan] * 5)
    return len(in_a), delong(a.label[in_a], a.score[in_a], b.score[in_b], a.patient[in_a])


def in_common(a: Result, b: Result) -> tuple[np.ndarray, np.ndarray]:
    """Where in each the cases are that both have judged; nowhere if they do not agree on the labels."""
    _, in_a, in_b = np.intersect1d(a.id, b.id, return_indices=True)
    agreed = np.array_equal(a.label[in_a], b.label[in_b])
    return (in_a, in_b) if agreed else (in_a[:0], in_b[:0])
