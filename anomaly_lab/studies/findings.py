"""What a study found, from the records of its runs alone: figures, tests, agreement with the publication, cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomaly_lab.metrics.comparison import (
    Agreement,
    DeLong,
    Paired,
    Summary,
    agreement,
    auroc_interval,
    holm,
    paired,
    summary,
)
from anomaly_lab.reports.charts import BASELINE_NAMES
from anomaly_lab.studies.plan import Key, Row, Study
from anomaly_lab.studies.results import Result, within_split

MARK = " †"


class Cell(NamedTuple):
    """A method on a data set.

    Attributes:
        values: AUROC by seed.
        summary: of these.
        low, high: 95 % interval of the mean over seeds; of a single seed DeLong's, of the chance in the test split.
        paper: the publication's figure.
    """

    values: dict[int, float]
    summary: Summary
    low: float
    high: float
    paper: float | None


class Line(NamedTuple):
    """A row of the main table; `floor` tells a method without training; `name` is the row's in the study."""

    name: str
    title: str
    floor: bool
    cells: dict[str, Cell]


class Rivalry(NamedTuple):
    """A row or a floor and the row that it is held against, both by seed.

    Attributes:
        row, base: their names.
        pairs: results of both on the seeds that both have, in order; never empty.
    """

    row: str
    base: str
    pairs: dict[int, tuple[Result, Result]]


class Versus(NamedTuple):
    """A row or a floor against another row; the p-values marked `holm` are corrected within the data set.

    Attributes:
        dataset, row, base: what is compared, and with which row.
        paired: over the seeds that both have; negative favours `base`.
        t_holm, wilcoxon_holm: corrected.
        seed: of the split in which the two were compared case by case, the lowest that both have.
        cases: how many both have judged there.
        delong: of these.
        delong_holm: corrected.
    """

    dataset: str
    row: str
    base: str
    paired: Paired
    t_holm: float
    wilcoxon_holm: float
    seed: int
    cases: int
    delong: DeLong
    delong_holm: float


class Cost(NamedTuple):
    """What a row took on a data set, means over its seeds; None where the record does not say.

    Attributes:
        phases: iterations of each phase.
        shared: phase that another run had done.
        seconds: of this run's own training.
        scoring: seconds of scoring held-out and test images.
        lent: seconds of what it started from.
        memory: peak in GB, the GPU's where there is one.
    """

    phases: dict[str, int]
    shared: str | None
    seconds: float | None
    scoring: float | None
    lent: float | None
    memory: float | None


@dataclass(frozen=True)
class Findings:
    """A study and all that its records give.

    Attributes:
        study: as planned.
        results: by key; runs that are missing are not in it.
        missing: why there is no result.
    """

    study: Study
    results: dict[Key, Result]
    missing: dict[Key, str] = field(default_factory=dict)

    @property
    def rows(self) -> dict[str, Row]:
        """Those that are shown; a title ends in MARK where one of its runs is marked."""
        return {
            name: replace(row, title=row.title + MARK) if name in self.marked else row
            for name, row in self.study.rows.items()
            if not row.hidden
        }

    @property
    def marked(self) -> set[str]:
        """Names of the rows one of whose runs is."""
        return {key.row for key, result in self.results.items() if result.marked}

    @property
    def published(self) -> bool:
        """Whether there are figures to hold ours against."""
        return any(row.paper for row in self.rows.values())

    @property
    def reference(self) -> str:
        """The row that those are tested against which name no other."""
        return self.study.reference or next(iter(self.rows))

    def of(self, row: str, dataset: str) -> dict[int, Result]:
        """Results of a row by seed, in order."""
        found = {key.seed: result for key, result in self.results.items() if (key.row, key.dataset) == (row, dataset)}
        return dict(sorted(found.items()))

    def caveats(self) -> dict[str, list[str]]:
        """What runs say of themselves, and the titles of the rows it is true of."""
        found: dict[str, list[str]] = {}
        for key, result in self.results.items():
            title = self.study.rows[key.row].title
            for caveat in result.caveats:
                if title not in found.setdefault(caveat, []):
                    found[caveat].append(title)
        return found

    @cached_property
    def lines(self) -> list[Line]:
        """The main table, the baselines last."""
        datasets = self.study.datasets
        found = [
            Line(name, row.title, False, {d: _cell(self.of(name, d), row.paper.get(d)) for d in datasets})
            for name, row in self.rows.items()
        ]
        return found + [
            Line(name, self.title(name), True, {d: _cell(self.floor(name, d), None) for d in datasets})
            for name in self.baselines
        ]

    @cached_property
    def baselines(self) -> list[str]:
        """Names of those that any run has."""
        return sorted({name for result in self.results.values() for name in result.baselines})

    def title(self, name: str) -> str:
        """Of a row or a floor."""
        return self.rows[name].title if name in self.rows else BASELINE_NAMES.get(name, name)

    def base(self, name: str) -> str:
        """The row that a row or a floor is held against: the one it names, if that is shown, else the reference."""
        named = self.rows[name].against if name in self.rows else None
        return named if named in self.rows else self.reference

    def rivalries(self, dataset: str) -> list[Rivalry]:
        """All rows and then the baselines, each with what it is held against, where both have a seed."""
        every = {name: self.of(name, dataset) for name in self.rows}
        every |= {name: self.floor(name, dataset) for name in self.baselines}
        found = [
            Rivalry(name, base, {seed: (theirs[seed], ours) for seed, ours in every[base].items() if seed in theirs})
            for name, theirs in every.items()
            if (base := self.base(name)) != name
        ]
        return [rivalry for rivalry in found if rivalry.pairs]

    def floor(self, name: str, dataset: str) -> dict[int, Result]:
        """A floor as if it were a row: from the first row that has it, of each seed, one without caveats if there is.

        Its scores depend on nothing else, its threshold on the rule.
        """
        found: dict[int, Result] = {}
        honest = {row for row in self.rows if not any(r.caveats for r in self.of(row, dataset).values())}
        for row in sorted((self.reference, *self.rows), key=lambda row: row not in honest):
            for seed, result in self.of(row, dataset).items():
                if name in result.baselines and seed not in found:
                    figures = (result.metrics.get("baselines") or {}).get(name) or {}
                    found[seed] = replace(result.evaluated_as(figures, result.rule), score=result.baselines[name])
        return dict(sorted(found.items()))

    def tests(self) -> list[Versus]:
        """Every row and the baselines against what they are held against, data set by data set."""
        return [test for dataset in self.study.datasets for test in self._tests(dataset)]

    def agreement(self) -> dict[str, Agreement]:
        """For each data set, whether our means rank the methods as the publication does."""
        pairs = {
            dataset: [(cell.summary.mean, cell.paper) for line in self.lines
                      if (cell := line.cells[dataset]).paper is not None and cell.values]
            for dataset in self.study.datasets
        }  # fmt: skip
        return {dataset: agreement([a for a, _ in both], [b for _, b in both]) for dataset, both in pairs.items()}

    def costs(self) -> dict[tuple[str, str], Cost]:
        """By row and data set."""
        found = {}
        for name in self.rows:
            for dataset in self.study.datasets:
                if runs := self.of(name, dataset):
                    found[name, dataset] = _cost(list(runs.values()))
        return found

    def _tests(self, dataset: str) -> list[Versus]:
        found = []
        for row, base, pairs in self.rivalries(dataset):
            theirs, ours = zip(*pairs.values(), strict=True)
            both = paired([run.figure() for run in theirs], [run.figure() for run in ours])
            cases, split = within_split(theirs[0], ours[0])
            found.append(Versus(dataset, row, base, both, math.nan, math.nan, min(pairs), cases, split, math.nan))
        corrected = zip(
            holm([test.paired.t for test in found]),
            holm([test.paired.wilcoxon for test in found]),
            holm([test.delong.p for test in found]),
            strict=True,
        )
        return [
            test._replace(t_holm=t, wilcoxon_holm=w, delong_holm=d)
            for test, (t, w, d) in zip(found, corrected, strict=True)
        ]


def read_findings(study: Study, runs: Mapping[Key, Path], missing: Mapping[Key, str]) -> Findings:
    """Read the finished runs of a study.

    Raises:
        UserError: a run's scores cannot be read.
    """
    return Findings(study, {key: Result.read(run) for key, run in runs.items()}, dict(missing))


def _cell(results: Mapping[int, Result], paper: float | None) -> Cell:
    values = {seed: result.figure() for seed, result in results.items()}
    over = summary(list(values.values()))
    low, high = over.low, over.high
    for result in results.values() if len(results) == 1 else ():
        low, high = auroc_interval(result.label, result.score, result.patient)
    return Cell(values, over, low, high, paper)


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
