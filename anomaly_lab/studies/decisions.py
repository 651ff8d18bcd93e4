"""What the runs’ own thresholds decided, beside rules that look at no image; what each row adds to another."""

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
HELD_AGAINST = ("auroc", "accuracy", "balanced_accuracy", "f1")  # the trivial rules' best; the others they reach at 1
GAIN_METRICS = ("auroc", "f1", "accuracy")
TRIVIAL = {"all_anomalous": "Call all anomalous", "all_normal": "Call all normal"}
GUESSING = 0.5  # AUROC of a rule that looks at no image
REPLICATES = 1000


class Decision(NamedTuple):
    """A row of the table of decisions.

    Attributes:
        name, title: of the row, the floor or the trivial rule.
        kind: which of these it is.
        rules: what drew the threshold, as the record says; empty for a trivial rule.
        values: metric of FIGURES -> by seed, as metrics.json has it; nan where the run had no threshold.
        interval: metric -> of a single seed, the bootstrap's.
    """

    name: str
    title: str
    kind: Literal["row", "floor", "trivial"]
    rules: list[str]
    values: dict[str, list[float]]
    interval: dict[str, tuple[float, float]]

    def figure(self, metric: str) -> Summary:
        """Mean and standard deviation over the seeds; the interval is the mean's, of a single seed the test split's."""
        over = summary([value for value in self.values[metric] if not math.isnan(value)])
        low, high = self.interval.get(metric, (over.low, over.high))
        return over._replace(low=low, high=high)


class Decisions(NamedTuple):
    """The table of a data set.

    Attributes:
        lines: rows, baselines, trivial rules.
        best: metric of HELD_AGAINST -> the better of the trivial rules; the AUROC of guessing.
    """

    lines: list[Decision]
    best: dict[str, float]

    @property
    def rules(self) -> list[str]:
        """All that drew a threshold."""
        return list(dict.fromkeys(rule for line in self.lines for rule in line.rules))

    def trivial(self, line: Decision, metric: str) -> bool:
        """Whether a row is no better than a rule that looks at no image."""
        return line.kind != "trivial" and line.figure(metric).mean <= self.best.get(metric, -math.inf) + 1e-9

    def idle(self, metric: str) -> list[str]:
        """Titles of the study's rows that are no better than that."""
        return [line.title for line in self.lines if line.kind == "row" and self.trivial(line, metric)]


class Gain(NamedTuple):
    """A row's figure minus that of the row it is held against.

    Attributes:
        values: by seed that both have, in order.
        mean: of these.
        low, high: 95 % interval: Student's over seeds; of a single seed the paired bootstrap's over test cases.
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
    """The table of a data set; None where no run has a record of its decisions."""
    rows = [_decision(name, row.title, "row", findings.of(name, dataset)) for name, row in findings.rows.items()]
    rows = [row for row in rows if row.values["accuracy"]]
    if not rows:
        return None
    others = [
        _decision(name, findings.title(name), "floor", findings.floor(name, dataset)) for name in findings.baselines
    ]
    rules = [_decision(name, title, "trivial", _called(findings, name, dataset)) for name, title in TRIVIAL.items()]
    best = {metric: max(rule.figure(metric).mean for rule in rules) for metric in HELD_AGAINST if metric != "auroc"}
    return Decisions([*rows, *others, *rules], best | {"auroc": GUESSING})


def gains(findings: Findings, dataset: str) -> dict[str, dict[str, Gain]]:
    """Row or baseline -> metric of GAIN_METRICS -> its gain over what it is compared with, over the seeds both have."""
    found = {}
    for row, _, by_seed in findings.rivalries(dataset):
        pairs = list(by_seed.values())
        found[row] = _over_seeds(pairs) if len(pairs) > 1 else _over_cases(*pairs[0])
    return found


def _decision(name: str, title: str, kind: Literal["row", "floor", "trivial"], runs: Mapping[int, Result]) -> Decision:
    judged = [run for run in runs.values() if run.metrics.get("detector")]
    values = {metric: [_value(run, metric) for run in judged] for metric in FIGURES}
    interval = {metric: _interval(judged[0], metric) for metric in FIGURES} if len(judged) == 1 else {}
    rules = list(dict.fromkeys(run.rule for run in judged if run.rule))
    return Decision(name, title, kind, rules, values, interval)


def _called(findings: Findings, rule: str, dataset: str) -> dict[int, Result]:
    """A trivial rule as if it were a row: from the first row that has it, of each seed."""
    found: dict[int, Result] = {}
    for row in (findings.reference, *findings.rows):
        for seed, result in findings.of(row, dataset).items():
            if seed not in found and (figures := (result.metrics.get("trivial") or {}).get(rule)):
                found[seed] = result.evaluated_as({name: {"value": value} for name, value in figures.items()})
    return dict(sorted(found.items()))


def _value(run: Result, metric: str) -> float:
    value = (run.metrics["detector"].get(metric) or {}).get("value")
    return math.nan if value is None else float(value)


def _interval(run: Result, metric: str) -> tuple[float, float]:
    entry: dict[str, Any] = run.metrics["detector"].get(metric) or {}
    low, high = (math.nan if (end := entry.get(side)) is None else float(end) for side in ("low", "high"))
    return low, high


def _over_seeds(pairs: list[tuple[Result, Result]]) -> dict[str, Gain]:
    found = {}
    for metric in GAIN_METRICS:
        values = [d for a, b in pairs if not math.isnan(d := _figure(a, metric) - _figure(b, metric))]
        n, mean = len(values), float(np.mean(values)) if values else math.nan
        half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        found[metric] = Gain(values, mean, mean - half, mean + half)
    return found


def _over_cases(a: Result, b: Result) -> dict[str, Gain]:
    """Differences of one seed, their intervals from drawing the patients that both runs have judged."""
    in_a, in_b = in_common(a, b)
    differences = {metric: _figure(a, metric) - _figure(b, metric) for metric in GAIN_METRICS}
    if not len(in_a):
        return {metric: Gain([value], value, math.nan, math.nan) for metric, value in differences.items()}
    ratings = {"a": (a.score[in_a], a.threshold), "b": (b.score[in_b], b.threshold)}
    drawn = statistics.bootstrap(a.label[in_a], a.patient[in_a].tolist(), ratings, REPLICATES)
    apart = {metric: drawn["a"][metric] - drawn["b"][metric] for metric in GAIN_METRICS}
    return {metric: Gain([v], v, *statistics.interval(apart[metric])) for metric, v in differences.items()}


def _figure(run: Result, metric: str) -> float:
    return run.figure() if metric == "auroc" else _value(run, metric) if run.metrics.get("detector") else math.nan
