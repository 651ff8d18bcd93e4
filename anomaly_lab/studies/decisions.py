"""Decisions at the runs' own thresholds compared with trivial rules, and differences of the metrics between rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from anomaly_lab.metrics.comparison import Summary, holm, summary
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.intervals import over_pairs, over_runs, undefined
from anomaly_lab.studies.plan import Repeat
from anomaly_lab.studies.results import TITLES, Result

FIGURES = {
    "auroc": "AUROC",
    "balanced_accuracy": "Balanced accuracy",
    "recall": "Sensitivity",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "f1": "F1",
}
# Metrics that are compared with the better trivial rule; of the others, a trivial rule always reaches 1.
COMPARED_METRICS = ("auroc", "balanced_accuracy", "accuracy", "f1")
GAIN_METRICS = ("auroc", "balanced_accuracy", "f1", "accuracy")
TRIVIAL = {"all_anomalous": "Call all anomalous", "all_normal": "Call all normal"}
GUESSING = 0.5  # AUROC of random guessing
SIGNIFICANT = 0.05  # corrected p-value below which a difference is settled


class Decision(NamedTuple):
    """A row of the table of decisions: a row of the study, a baseline or a trivial rule.

    Attributes:
        name, title: its name and display name.
        kind: which of the three it is.
        rules: how the threshold was set, as metrics.json says; empty for a trivial rule.
        values: metric of FIGURES -> values of metrics.json by seed; NaN where the run had no threshold.
        interval: metric -> 95 % interval for new patients and new trainings; of a single run as it recorded it, for new
            patients. A trivial rule has none.
    """

    name: str
    title: str
    kind: Literal["row", "baseline", "trivial"]
    rules: list[str]
    values: dict[str, list[float]]
    interval: dict[str, tuple[float, float]]

    def figure(self, metric: str) -> Summary:
        """Return mean and standard deviation over the seeds, with the interval.

        Args:
            metric: of FIGURES.
        """
        over_seeds = summary([value for value in self.values[metric] if not math.isnan(value)])
        low, high = self.interval.get(metric, (math.nan, math.nan))
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
        low, high: 95 % interval for new patients and new trainings; of a single seed for new patients.
        p: p-value against 0 after Holm's correction within the data set and the metric; NaN without one.

    Examples:
        >>> Gain([0.02, 0.06], mean=0.04, low=-0.21, high=0.29).settled
        False
    """

    values: list[float]
    mean: float
    low: float
    high: float
    p: float = math.nan

    @property
    def settled(self) -> bool:
        """Whether the interval excludes 0, also after the correction for several comparisons."""
        return (self.low > 0 or self.high < 0) and not self.p >= SIGNIFICANT


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
    """Compute how much each row and baseline differs from the row it is compared with, over their common repeats.

    Returns:
        Row or baseline -> metric of `gained(findings)` -> gain.

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
    metrics = list(gained(findings))
    found = {row: _gains(list(by_repeat.values()), metrics) for row, _, by_repeat in findings.comparisons(dataset)}
    for metric in metrics:
        corrected = holm([by_metric[metric].p for by_metric in found.values()])
        for by_metric, p in zip(found.values(), corrected, strict=True):
            by_metric[metric] = by_metric[metric]._replace(p=p)
    return found


def gained(findings: Findings) -> dict[str, str]:
    """Return the metrics whose differences are shown, with their titles: the study's first.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"a": Row("A", "a_toy")}, metric="map")
        >>> list(gained(Findings(study, results={})))
        ['map', 'auroc', 'balanced_accuracy', 'f1']
    """
    own = findings.study.metric
    others = [metric for metric in GAIN_METRICS if metric != own][: len(GAIN_METRICS) - 1]
    return {own: TITLES[own]} | {metric: FIGURES[metric] for metric in others}


def _decision(
    name: str, title: str, kind: Literal["row", "baseline", "trivial"], runs: Mapping[Repeat, Result]
) -> Decision:
    evaluated = [run for run in runs.values() if run.metrics.get("detector")]
    values = {metric: [_value(run, metric) for run in evaluated] for metric in FIGURES}
    interval = {metric: _interval(evaluated[0], metric) for metric in FIGURES} if len(evaluated) == 1 else {}
    if len(evaluated) > 1 and kind != "trivial":
        interval = _intervals(evaluated, values)
    rules = list(dict.fromkeys(run.rule for run in evaluated if run.rule))
    return Decision(name, title, kind, rules, values, interval)


def _trivial(findings: Findings, rule: str, dataset: str) -> dict[Repeat, Result]:
    """Return the results of a trivial rule by repeat, each taken from the first row that has it."""
    results: dict[Repeat, Result] = {}
    for row in (findings.reference, *findings.rows):
        for repeat, result in findings.of(row, dataset).items():
            if repeat not in results and (figures := (result.metrics.get("trivial") or {}).get(rule)):
                results[repeat] = result.evaluated_as({name: {"value": value} for name, value in figures.items()})
    return {repeat: results[repeat] for repeat in sorted(results)}


def _value(run: Result, metric: str) -> float:
    value = (run.metrics["detector"].get(metric) or {}).get("value")
    return math.nan if value is None else float(value)


def _interval(run: Result, metric: str) -> tuple[float, float]:
    entry: dict[str, Any] = run.metrics["detector"].get(metric) or {}
    low, high = (math.nan if (end := entry.get(side)) is None else float(end) for side in ("low", "high"))
    return low, high


def _intervals(runs: list[Result], values: Mapping[str, list[float]]) -> dict[str, tuple[float, float]]:
    """Return the interval of each metric over several runs; those without a threshold only count for the AUROC."""
    deciding = [run for run, accuracy in zip(runs, values["accuracy"], strict=True) if not math.isnan(accuracy)]
    found = over_runs(runs, ["auroc"])
    if deciding:
        found |= over_runs(deciding, [metric for metric in FIGURES if metric != "auroc"])
    return {metric: (estimate.low, estimate.high) for metric, estimate in found.items()}


def _gains(pairs: list[tuple[Result, Result]], metrics: list[str]) -> dict[str, Gain]:
    """Return the difference of each metric over common repeats; the first metric is the study's."""
    gains = {}
    for metric in metrics:
        both = ((_figure(a, metric, metrics), _figure(b, metric, metrics)) for a, b in pairs)
        differences = [of_a - of_b for of_a, of_b in both]
        known = [pair for pair, d in zip(pairs, differences, strict=True) if not math.isnan(d)]
        values = [d for d in differences if not math.isnan(d)]
        mean = float(np.mean(values)) if values else math.nan
        own = metric if metric == metrics[0] else ""
        found = over_pairs(known, [metric], own).get(metric, undefined(mean))
        gains[metric] = Gain(values, mean, found.low, found.high, found.p)
    return gains


def _figure(run: Result, metric: str, metrics: list[str]) -> float:
    """Return a metric of a run: the study's own, which is the first, the AUROC, or one at the run's threshold."""
    return run.figure(metric) if metric in (metrics[0], "auroc") else run.decided(metric)
