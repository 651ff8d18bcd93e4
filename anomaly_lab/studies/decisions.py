"""Decisions at the runs' own thresholds compared with trivial rules, and differences of the metrics between rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from anomaly_lab.metrics import statistics
from anomaly_lab.metrics.comparison import Summary, summary
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.results import Result, in_common

FIGURES = {
    "auroc": "AUROC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
}
# Metrics that are compared with the better trivial rule; of the others, a trivial rule always reaches 1.
COMPARED_METRICS = ("auroc", "accuracy", "balanced_accuracy", "f1")
GAIN_METRICS = ("auroc", "f1", "accuracy")
TRIVIAL = {"all_anomalous": "Call all anomalous", "all_normal": "Call all normal"}
GUESSING = 0.5  # AUROC of random guessing
REPLICATES = 1000  # of the bootstrap


class Decision(NamedTuple):
    """A row of the table of decisions: a row of the study, a baseline or a trivial rule.

    Attributes:
        name, title: its name and display name.
        kind: which of the three it is.
        rules: how the threshold was set, as metrics.json says; empty for a trivial rule.
        values: metric of FIGURES -> values of metrics.json by seed; NaN where the run had no threshold.
        interval: metric -> bootstrap interval; only with a single seed.
    """

    name: str
    title: str
    kind: Literal["row", "baseline", "trivial"]
    rules: list[str]
    values: dict[str, list[float]]
    interval: dict[str, tuple[float, float]]

    def figure(self, metric: str) -> Summary:
        """Return mean, standard deviation and interval over the seeds; a single seed has its bootstrap interval.

        Args:
            metric: of FIGURES.
        """
        over_seeds = summary([value for value in self.values[metric] if not math.isnan(value)])
        low, high = self.interval.get(metric, (over_seeds.low, over_seeds.high))
        return over_seeds._replace(low=low, high=high)


class Decisions(NamedTuple):
    """The table of decisions on a data set.

    Attributes:
        lines: rows of the study, then baselines, then trivial rules.
        best: metric of COMPARED_METRICS -> value of the better trivial rule; for the AUROC, that of guessing.
    """

    lines: list[Decision]
    best: dict[str, float]

    @property
    def rules(self) -> list[str]:
        """All rules that set a threshold in this table."""
        return list(dict.fromkeys(rule for line in self.lines for rule in line.rules))

    def trivial(self, line: Decision, metric: str) -> bool:
        """Return whether a row or baseline is no better than the better trivial rule."""
        return line.kind != "trivial" and line.figure(metric).mean <= self.best.get(metric, -math.inf) + 1e-9

    def idle(self, metric: str) -> list[str]:
        """Return the titles of the study's rows that are no better than the better trivial rule."""
        return [line.title for line in self.lines if line.kind == "row" and self.trivial(line, metric)]


class Gain(NamedTuple):
    """A metric of a row minus that of the row it is compared with.

    Attributes:
        values: differences, one per common seed, in the order of the seeds.
        mean: their mean.
        low, high: 95 % interval: Student's over seeds, or for a single seed that of the paired bootstrap over test
            cases.

    Examples:
        >>> Gain([0.02, 0.06], mean=0.04, low=-0.21, high=0.29).settled
        False
    """

    values: list[float]
    mean: float
    low: float
    high: float

    @property
    def settled(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def decisions(findings: Findings, dataset: str) -> Decisions | None:
    """Make the table of decisions on a data set; None if no run has a metrics.json.

    Args:
        findings: results of the study.
        dataset: name of a data set of the study.

    Examples:
        On the results of a finished study::

            table = decisions(findings, "headct")
            table.idle("accuracy")  # rows that are no more accurate than calling all images anomalous or all normal
    """
    rows = [_decision(name, row.title, "row", findings.of(name, dataset)) for name, row in findings.rows.items()]
    rows = [row for row in rows if row.values["accuracy"]]
    if not rows:
        return None
    baselines = [
        _decision(name, findings.title(name), "baseline", findings.baseline(name, dataset))
        for name in findings.baselines
    ]
    trivial = [_decision(name, title, "trivial", _trivial(findings, name, dataset)) for name, title in TRIVIAL.items()]
    best = {
        metric: max(rule.figure(metric).mean for rule in trivial) for metric in COMPARED_METRICS if metric != "auroc"
    }
    return Decisions([*rows, *baselines, *trivial], best | {"auroc": GUESSING})


def gains(findings: Findings, dataset: str) -> dict[str, dict[str, Gain]]:
    """Compute how much each row and baseline differs from the row it is compared with, over their common seeds.

    Returns:
        Row or baseline -> metric of GAIN_METRICS -> gain.

    Examples:
        >>> from pathlib import Path
        >>> from anomaly_lab.studies.plan import DataSet, Key, Row, Study
        >>> rows = {"a": Row("A", "a_toy"), "b": Row("B", "b_toy")}  # the first row is the reference
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows=rows)
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> scores = {"a": np.array([0.1, 0.4, 0.3, 0.9]), "b": np.array([0.1, 0.2, 0.3, 0.4])}
        >>> runs = {Key(row, "set", 0): Result(Path("run"), ids, ids, label, scores[row], {}, {}) for row in rows}
        >>> gains(Findings(study, runs), "set")["b"]["auroc"].mean  # 1.0 - 0.75
        0.25
    """
    by_row = {}
    for row, _, by_seed in findings.comparisons(dataset):
        pairs = list(by_seed.values())
        by_row[row] = _over_seeds(pairs) if len(pairs) > 1 else _over_cases(*pairs[0])
    return by_row


def _decision(
    name: str, title: str, kind: Literal["row", "baseline", "trivial"], runs: Mapping[int, Result]
) -> Decision:
    evaluated = [run for run in runs.values() if run.metrics.get("detector")]
    values = {metric: [_value(run, metric) for run in evaluated] for metric in FIGURES}
    interval = {metric: _interval(evaluated[0], metric) for metric in FIGURES} if len(evaluated) == 1 else {}
    rules = list(dict.fromkeys(run.rule for run in evaluated if run.rule))
    return Decision(name, title, kind, rules, values, interval)


def _trivial(findings: Findings, rule: str, dataset: str) -> dict[int, Result]:
    """Return the results of a trivial rule by seed, each taken from the first row that has it."""
    results: dict[int, Result] = {}
    for row in (findings.reference, *findings.rows):
        for seed, result in findings.of(row, dataset).items():
            if seed not in results and (figures := (result.metrics.get("trivial") or {}).get(rule)):
                results[seed] = result.evaluated_as({name: {"value": value} for name, value in figures.items()})
    return dict(sorted(results.items()))


def _value(run: Result, metric: str) -> float:
    value = (run.metrics["detector"].get(metric) or {}).get("value")
    return math.nan if value is None else float(value)


def _interval(run: Result, metric: str) -> tuple[float, float]:
    entry: dict[str, Any] = run.metrics["detector"].get(metric) or {}
    low, high = (math.nan if (end := entry.get(side)) is None else float(end) for side in ("low", "high"))
    return low, high


def _over_seeds(pairs: list[tuple[Result, Result]]) -> dict[str, Gain]:
    """Return the differences over several seeds with Student's interval of their mean."""
    by_metric = {}
    for metric in GAIN_METRICS:
        values = [d for a, b in pairs if not math.isnan(d := _figure(a, metric) - _figure(b, metric))]
        n, mean = len(values), float(np.mean(values)) if values else math.nan
        half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        by_metric[metric] = Gain(values, mean, mean - half, mean + half)
    return by_metric


def _over_cases(a: Result, b: Result) -> dict[str, Gain]:
    """Return the differences of a single seed with bootstrap intervals over the patients that both runs evaluated."""
    in_a, in_b = in_common(a, b)
    differences = {metric: _figure(a, metric) - _figure(b, metric) for metric in GAIN_METRICS}
    if not len(in_a):
        return {metric: Gain([value], value, math.nan, math.nan) for metric, value in differences.items()}
    ratings = {"a": (a.score[in_a], a.threshold), "b": (b.score[in_b], b.threshold)}
    replicated = statistics.bootstrap(a.label[in_a], a.patient[in_a].tolist(), ratings, REPLICATES)
    paired = {metric: replicated["a"][metric] - replicated["b"][metric] for metric in GAIN_METRICS}
    return {metric: Gain([v], v, *statistics.interval(paired[metric])) for metric, v in differences.items()}


def _figure(run: Result, metric: str) -> float:
    return run.figure() if metric == "auroc" else _value(run, metric) if run.metrics.get("detector") else math.nan
