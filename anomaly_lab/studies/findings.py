"""Results of a study, computed from its run folders alone: AUROCs, tests, agreement with the publication, cost."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomaly_lab.experiment.record import remarks_of
from anomaly_lab.metrics.comparison import (
    Agreement,
    DeLong,
    Paired,
    Summary,
    agreement,
    delong_of_folds,
    holm,
    paired,
    summary,
)
from anomaly_lab.metrics.joint import Estimate, Sample
from anomaly_lab.reports.charts import BASELINE_NAMES
from anomaly_lab.studies.intervals import over_pairs, over_runs, too_few, undefined
from anomaly_lab.studies.plan import Fold, Key, Repeat, Row, Study
from anomaly_lab.studies.results import TITLES, Result, in_common, within_split

MARK = " †"  # ends the title of a row with caveats or synthetic data


class Cell(NamedTuple):
    """Results of a row on a data set.

    Attributes:
        values: the study's metric by seed, or by seed and fold.
        summary: mean, standard deviation and number of repeats.
        low, high: 95 % interval of the mean over repeats, for new patients and new trainings; of a single run for new
            patients. NaN with too few patients.
        paper: the metric in the publication; None if it has none.
        same_patients: Student's 95 % interval of the mean over repeats, for new splits of these patients only,
            corrected for the training cases that folds share; NaN for a single run.
    """

    values: dict[Repeat, float]
    summary: Summary
    low: float
    high: float
    paper: float | None
    same_patients: tuple[float, float] = (math.nan, math.nan)


class Line(NamedTuple):
    """A line of the main table.

    Attributes:
        name: of the study's row, or of the baseline.
        title: display name.
        is_baseline: whether it is a baseline, which needs no training.
        cells: results by data set.
    """

    name: str
    title: str
    is_baseline: bool
    cells: dict[str, Cell]


class LineOfClasses(NamedTuple):
    """Average precision of each class: here, as the mean over the repeats that have it, and in the publication."""

    title: str
    values: dict[str, float]
    paper: dict[str, float]


class OfClasses(NamedTuple):
    """Average precision by row and class on a data set.

    Attributes:
        names: of the classes.
        lines: rows with classes, from top to bottom.
    """

    names: list[str]
    lines: list[LineOfClasses]


class Comparison(NamedTuple):
    """A row or baseline and the row that it is compared with.

    Attributes:
        row, base: their names.
        pairs: results of both by common repeat, in the order of the repeats; never empty.
    """

    row: str
    base: str
    pairs: dict[Repeat, tuple[Result, Result]]


class Versus(NamedTuple):
    """Tests of a row or baseline against another row; p-values are corrected by Holm's method within the data set.

    Attributes:
        dataset, row, base: the data set, the row, and the row it is compared with.
        paired: tests over common repeats, for these patients only; a negative difference favours `base`.
        t_holm, wilcoxon_holm: corrected p-values of these.
        joint: the difference with its interval and test for new patients and new trainings.
        joint_holm: its corrected p-value.
        seed: lowest common seed, on whose split, or folds, the two are compared case by case.
        cases: number of test cases that both evaluated there.
        delong: DeLong's test on these cases.
        delong_holm: its corrected p-value.
    """

    dataset: str
    row: str
    base: str
    paired: Paired
    t_holm: float
    wilcoxon_holm: float
    joint: Estimate
    joint_holm: float
    seed: int
    cases: int
    delong: DeLong
    delong_holm: float


class Cost(NamedTuple):
    """Cost of a row on a data set, as means over its seeds; None where it was not recorded.

    Attributes:
        phases: iterations of each phase.
        shared: phase that was not trained but taken from another run (warm start); None without one.
        seconds: training time.
        scoring: time to score the validation and test images, in seconds.
        warm_start: training time of the shared phase in the run it was taken from, in seconds.
        memory: peak memory in GB, of the GPU if there is one; the highest of the seeds.
    """

    phases: dict[str, int]
    shared: str | None
    seconds: float | None
    scoring: float | None
    warm_start: float | None
    memory: float | None


@dataclass(frozen=True)
class Findings:
    """A study with the results of its runs.

    Attributes:
        study: the study.
        results: of the finished runs.
        missing: for each run without a result, the reason.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> result = Result(Path("run"), ids, ids, label, np.array([0.1, 0.4, 0.3, 0.9]), {}, {})
        >>> findings = Findings(study, {Key("vae", "set", 0): result})
        >>> findings.lines[0].title, findings.lines[0].cells["set"].summary.mean
        ('VAE', 0.75)
    """

    study: Study
    results: dict[Key, Result]
    missing: dict[Key, str] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, Row]:
        """Rows that are shown; the title ends in MARK if one of the row's runs has caveats or synthetic data."""
        return {
            name: replace(row, title=row.title + MARK) if name in self.marked else row
            for name, row in self.study.rows.items()
            if not row.hidden
        }

    @property
    def marked(self) -> set[str]:
        """Names of the rows with a run that has caveats or synthetic data."""
        return {key.row for key, result in self.results.items() if result.marked}

    @property
    def published(self) -> bool:
        """Whether any row has published results to compare with."""
        return any(row.paper for row in self.rows.values())

    @property
    def reference(self) -> str:
        """Name of the row that the others are compared with, unless they name another."""
        return self.study.reference or next(iter(self.rows))

    @property
    def metric(self) -> str:
        """Display name of the study's metric."""
        return TITLES[self.study.metric]

    @property
    def folded(self) -> bool:
        """Whether any data set is evaluated in folds."""
        return any(map(self.study.folds_of, self.study.datasets))

    def overlap(self, dataset: str) -> float:
        """Return the number of test patients over that of others, if the repeats on a data set are folds; else 0."""
        folds = self.study.folds_of(dataset)
        return 1 / (folds - 1) if folds else 0.0

    def of(self, row: str, dataset: str) -> dict[Repeat, Result]:
        """Return the results of a row on a data set by seed, or by seed and fold, in their order."""
        runs = {key: result for key, result in self.results.items() if (key.row, key.dataset) == (row, dataset)}
        return {key.repeat: runs[key] for key in sorted(runs, key=lambda key: (key.seed, key.fold or 0))}

    def caveats(self) -> dict[str, list[str]]:
        """Return the caveats that runs recorded, each with the titles of its rows."""
        titles: dict[str, list[str]] = {}
        for key, result in self.results.items():
            title = self.study.rows[key.row].title
            for caveat in result.caveats:
                if title not in titles.setdefault(caveat, []):
                    titles[caveat].append(title)
        return titles

    def remarks(self, dataset: str) -> list[str]:
        """Return what runs remarked on their data, such as that files of one patient both train and judge.

        Remarks that differ in their figures only are one, in the words of the first split.
        """
        first: dict[str, str] = {}
        splits: dict[str, set[Repeat]] = {}
        for key, result in self.results.items():
            if key.dataset == dataset:
                for remark in remarks_of(result.facts.get("data") or {}):
                    kind = re.sub(r"\d+", "#", remark)
                    first.setdefault(kind, remark)
                    splits.setdefault(kind, set()).add(key.repeat)
        also = {kind: f" ({len(of)} splits have such figures; these are of the first.)" for kind, of in splits.items()}
        return [remark + also[kind] * (len(splits[kind]) > 1) for kind, remark in first.items()]

    @cached_property
    def lines(self) -> list[Line]:
        """Lines of the main table: the rows, then the baselines."""
        datasets = self.study.datasets
        rows = [
            Line(name, row.title, False, {d: self._cell(self.of(name, d), d, row.paper.get(d)) for d in datasets})
            for name, row in self.rows.items()
        ]
        return rows + [
            Line(name, self.title(name), True, {d: self._cell(self.baseline(name, d), d) for d in datasets})
            for name in self.baselines
        ]

    def classes(self, dataset: str) -> OfClasses | None:
        """Return the average precision of each class by row, as means over the repeats; None if no run has classes."""
        names: dict[str, None] = {}
        lines = []
        for name, row in self.rows.items():
            values: dict[str, list[float]] = {}
            for result in self.of(name, dataset).values():
                for of_class, figures in ((result.metrics.get("classes") or {}).get("each") or {}).items():
                    value = (figures.get("average_precision") or {}).get("value")
                    values.setdefault(of_class, []).extend([] if value is None else [value])
            names |= dict.fromkeys(values)
            means = {of_class: float(np.mean(known)) for of_class, known in values.items() if known}
            if values:
                lines.append(LineOfClasses(row.title, means, row.paper_classes.get(dataset) or {}))
        return OfClasses(list(names), lines) if lines else None

    @cached_property
    def baselines(self) -> list[str]:
        """Names of the baselines that any run has."""
        return sorted({name for result in self.results.values() for name in result.baselines})

    def title(self, name: str) -> str:
        """Return the display name of a row or baseline."""
        return self.rows[name].title if name in self.rows else BASELINE_NAMES.get(name, name)

    def base(self, name: str) -> str:
        """Return the row to compare a row or baseline with: the one it names if that is shown, else the reference."""
        named = self.rows[name].against if name in self.rows else None
        return named if named in self.rows else self.reference

    def comparisons(self, dataset: str) -> list[Comparison]:
        """Return all rows, then the baselines, each with the row it is compared with, if they have common repeats."""
        results = {name: self.of(name, dataset) for name in self.rows}
        results |= {name: self.baseline(name, dataset) for name in self.baselines}
        comparisons = [
            Comparison(name, base, {repeat: (of_name[repeat], of_base) for repeat, of_base in results[base].items()
                                    if repeat in of_name})
            for name, of_name in results.items()
            if (base := self.base(name)) != name
        ]  # fmt: skip
        return [comparison for comparison in comparisons if comparison.pairs]

    def baseline(self, name: str, dataset: str) -> dict[Repeat, Result]:
        """Return the results of a baseline by repeat, each taken from the first row that has it.

        Rows without caveats come first. The scores do not depend on the row, but the threshold depends on its rule.
        """
        results: dict[Repeat, Result] = {}
        without_caveats = {row for row in self.rows if not any(r.caveats for r in self.of(row, dataset).values())}
        for row in sorted((self.reference, *self.rows), key=lambda row: row not in without_caveats):
            for repeat, result in self.of(row, dataset).items():
                if name in result.baselines and repeat not in results:
                    figures = (result.metrics.get("baselines") or {}).get(name) or {}
                    results[repeat] = replace(result.evaluated_as(figures, result.rule), score=result.baselines[name])
        return {repeat: results[repeat] for repeat in sorted(results)}

    def tests(self) -> list[Versus]:
        """Test every row and baseline against the row it is compared with, data set by data set."""
        return [test for dataset in self.study.datasets for test in self._tests(dataset)]

    def agreement(self) -> dict[str, Agreement]:
        """Return for each data set how well our means rank the methods as the publication does."""
        pairs = {
            dataset: [(cell.summary.mean, cell.paper) for line in self.lines
                      if (cell := line.cells[dataset]).paper is not None and cell.values]
            for dataset in self.study.datasets
        }  # fmt: skip
        return {dataset: agreement([a for a, _ in cells], [b for _, b in cells]) for dataset, cells in pairs.items()}

    def costs(self) -> dict[tuple[str, str], Cost]:
        """Return the cost by row and data set."""
        by_row = {}
        for name in self.rows:
            for dataset in self.study.datasets:
                if runs := self.of(name, dataset):
                    by_row[name, dataset] = _cost(list(runs.values()))
        return by_row

    def few(self) -> dict[str, str]:
        """Return for each data set with too few patients for intervals the sentence that says so."""
        runs = {d: [run for key, run in self.results.items() if key.dataset == d] for d in self.study.datasets}
        return {dataset: sentence for dataset, of_all in runs.items() if (sentence := too_few(of_all))}

    def _tests(self, dataset: str) -> list[Versus]:
        tests, metric = [], self.study.metric
        for row, base, pairs in self.comparisons(dataset):
            values = {repeat: [run.figure(metric) for run in pair] for repeat, pair in pairs.items()}
            known = {r: pair for r, pair in values.items() if np.isfinite(pair).all() or metric == "auroc"}
            if not known:
                continue
            of_row, of_base = ([pair[i] for pair in known.values()] for i in (0, 1))
            over_repeats = paired(of_row, of_base, self.overlap(dataset))
            jointly = over_pairs([pairs[repeat] for repeat in known], [metric], metric)
            seed, cases, split = _within_first_seed(pairs)
            tests.append(
                Versus(dataset, row, base, over_repeats, math.nan, math.nan,
                       jointly.get(metric, undefined(over_repeats.difference)), math.nan, seed, cases, split, math.nan)
            )  # fmt: skip
        corrected = zip(
            holm([test.paired.t for test in tests]),
            holm([test.paired.wilcoxon for test in tests]),
            holm([test.joint.p for test in tests]),
            holm([test.delong.p for test in tests]),
            strict=True,
        )
        return [
            test._replace(t_holm=t, wilcoxon_holm=w, joint_holm=j, delong_holm=d)
            for test, (t, w, j, d) in zip(tests, corrected, strict=True)
        ]

    def _cell(self, results: Mapping[Repeat, Result], dataset: str, paper: float | None = None) -> Cell:
        metric = self.study.metric
        values = {repeat: result.figure(metric) for repeat, result in results.items()}
        if metric != "auroc":
            values = {repeat: value for repeat, value in values.items() if math.isfinite(value)}
        over_repeats = summary(list(values.values()), overlap=self.overlap(dataset))
        found = over_runs([results[repeat] for repeat in values], [metric], metric)[metric] if values else undefined(0)
        same_patients = (over_repeats.low, over_repeats.high)
        return Cell(values, over_repeats, found.low, found.high, paper, same_patients)


def _within_first_seed(pairs: Mapping[Repeat, tuple[Result, Result]]) -> tuple[int, int, DeLong]:
    """Return the lowest seed, the number of its test cases that both evaluated, and DeLong's test on them."""
    first = min(pairs)
    if not isinstance(first, Fold):
        cases, split = within_split(*pairs[first])
        return first, cases, split
    folds = []
    for repeat, (a, b) in pairs.items():
        if isinstance(repeat, Fold) and repeat.seed == first.seed:
            in_a, in_b = in_common(a, b)
            folds.append(Sample(a.label[in_a], a.score[in_a], a.patient[in_a], b.score[in_b]))
    return first.seed, sum(len(fold.label) for fold in folds), delong_of_folds(folds)


def read_findings(study: Study, runs: Mapping[Key, Path], missing: Mapping[Key, str]) -> Findings:
    """Read the results of a study's finished runs.

    Args:
        study: the study.
        runs: run folders of the finished runs.
        missing: for each run without a result, the reason.

    Raises:
        UserError: a run's scores cannot be read.

    Examples:
        With a run folder of a trained and evaluated run::

            key = Key("ganomaly", "headct", 0)
            findings = read_findings(study, {key: Path("runs/ganomaly_headct/2030-01-01T10-00-00")}, missing={})
    """
    return Findings(study, {key: Result.read(run) for key, run in runs.items()}, dict(missing))


def _cost(runs: list[Result]) -> Cost:
    starts = [run.facts.get("started_from") or {} for run in runs]
    return Cost(
        (runs[0].facts.get("detector") or {}).get("phases") or {},
        starts[0].get("phase"),
        _mean(run.seconds for run in runs),
        _mean(run.facts.get("scoring_seconds") for run in runs),
        _mean(start.get("seconds") for start in starts),
        max((m for run in runs if (m := run.memory) is not None), default=None),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
