"""What a study found, from the records of its runs alone: figures, tests, agreement with the publication, cost."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomaly_lab.evaluation.charts import FLOORS, rate
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.metrics import ranking
from anomaly_lab.metrics.comparison import (
    Agreement,
    DeLong,
    Paired,
    Summary,
    agreement,
    auroc_interval,
    delong,
    holm,
    paired,
    summary,
)
from anomaly_lab.runs import read_json
from anomaly_lab.studies.plan import Key, Row, Study

METRICS = {
    "auroc": ("AUROC", ranking.auroc),
    "average_precision": ("Average precision", ranking.average_precision),
    "sensitivity_at_95_specificity": ("Sensitivity at 95 % specificity", ranking.sensitivity_at_specificity),
}


MARK = " †"
TWIN = "Some of these runs saw generated pictures, not patients: the numbers say nothing about medicine."


@dataclass(frozen=True)
class Result:
    """The record of one run, its test split alone.

    Attributes:
        run: folder.
        id: [N], of the cases.
        patient: [N], whose they are.
        label: [N].
        score: [N], raw.
        floors: name -> [N], of methods without training.
        facts: provenance.json.
        metrics: metrics.json; empty where there is none.
    """

    run: Path
    id: np.ndarray
    patient: np.ndarray
    label: ranking.Labels
    score: ranking.Floats
    floors: dict[str, ranking.Floats]
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
        floors = {name: values[test] for name, values in scores.floors.items()}
        facts, metrics = (read_json(run / name) for name in ("provenance.json", "metrics.json"))
        id, patient = np.array(scores.id)[test], np.array(scores.patient)[test]
        return cls(run, id, patient, scores.label[test], scores.score[test], floors, facts, metrics)

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

    def judged_as(self, figures: dict[str, Any], rule: str = "") -> Result:
        """Its test split with the figures of something else than its detector: a floor, a trivial rule."""
        return replace(self, metrics={"detector": figures, "threshold": {"rule": rule}}, facts={}, floors={})

    def figure(self, metric: str = "auroc") -> float:
        """One of METRICS."""
        if metric not in self._known:
            self._known[metric] = METRICS[metric][1](self.label, self.score)
        return self._known[metric]


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


class Versus(NamedTuple):
    """The reference against another row of a data set; the p-values marked `holm` are corrected within the data set.

    Attributes:
        dataset, row: what is compared with the reference.
        paired: over the seeds that both have; positive favours the reference.
        t_holm, wilcoxon_holm: corrected.
        seed: of the split in which the two were compared case by case, the lowest that both have.
        cases: how many both have judged there.
        delong: of these.
        delong_holm: corrected.
    """

    dataset: str
    row: str
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
        """The row that others are tested against."""
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
        """The main table, the floors last."""
        datasets = self.study.datasets
        found = [
            Line(name, row.title, False, {d: _cell(self.of(name, d), row.paper.get(d)) for d in datasets})
            for name, row in self.rows.items()
        ]
        floors = {name for result in self.results.values() for name in result.floors}
        return found + [
            Line(name, FLOORS.get(name, name), True, {d: _cell(self.floor(name, d), None) for d in datasets})
            for name in sorted(floors)
        ]

    def floor(self, name: str, dataset: str) -> dict[int, Result]:
        """A floor as if it were a row: from the first row that has it, of each seed, one without caveats if there is.

        Its scores depend on nothing else, its threshold on the rule.
        """
        found: dict[int, Result] = {}
        honest = {row for row in self.rows if not any(r.caveats for r in self.of(row, dataset).values())}
        for row in sorted((self.reference, *self.rows), key=lambda row: row not in honest):
            for seed, result in self.of(row, dataset).items():
                if name in result.floors and seed not in found:
                    figures = (result.metrics.get("floors") or {}).get(name) or {}
                    found[seed] = replace(result.judged_as(figures, result.rule), score=result.floors[name])
        return dict(sorted(found.items()))

    def tests(self) -> list[Versus]:
        """The reference against every other row, data set by data set."""
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
        ours = self.of(self.reference, dataset)
        found = []
        for row in self.rows:
            theirs = self.of(row, dataset)
            seeds = [seed for seed in ours if seed in theirs]
            if row == self.reference or not seeds:
                continue
            both = paired([ours[s].figure() for s in seeds], [theirs[s].figure() for s in seeds])
            cases, split = within_split(ours[seeds[0]], theirs[seeds[0]])
            found.append(Versus(dataset, row, both, math.nan, math.nan, seeds[0], cases, split, math.nan))
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


def markdown(findings: Findings) -> str:
    """The main table with footnotes, as Markdown."""
    datasets = findings.study.datasets
    head = ["AUROC", *(title for d in datasets.values() for title in (f"{d.title}, here", "published"))]
    lines = [f"# {findings.study.title}", "", findings.study.question, "", _row(head), _row(["---"] * len(head))]
    for line in findings.lines:
        cells = [text for cell in line.cells.values() for text in (words(cell), rate(cell.paper, 2))]
        lines.append(_row([line.title + notes(findings, line.name), *cells]))
    lines += ["", INTERVALS, ""]
    lines += [f"[{i}] {text}" for i, text in enumerate(findings.study.footnotes.values(), 1)]
    if any(result.facts.get("source") == "twin" for result in findings.results.values()):
        lines.append(f"† {TWIN}")
    lines += [f"† {', '.join(titles)}: {caveat}" for caveat, titles in findings.caveats().items()]
    lines += [f"- missing: {key}: {reason}" for key, reason in findings.missing.items()]
    return "\n".join(lines) + "\n"


INTERVALS = (
    "Mean ± standard deviation over seeds, with Student’s 95 % interval of the mean; a single seed has DeLong’s "
    "interval instead, which covers the chance in the test split and not the chance in training; it and DeLong’s tests "
    "let a patient’s images depend on each other (Obuchowski 1997), which takes more than a handful of patients."
)


def words(cell: Cell) -> str:
    """A cell as .971 ± .004 [.96, .98] ×3."""
    if not cell.values:
        return "–"
    spread = f" ± {rate(cell.summary.sd)}" if cell.summary.n > 1 else ""
    interval = "" if math.isnan(cell.low) else f" [{rate(cell.low)}, {rate(cell.high)}]"
    return f"{rate(cell.summary.mean)}{spread}{interval} ×{cell.summary.n}"


def notes(findings: Findings, row: str) -> str:
    """The numbers of a row's footnotes: " [1, 3]", or nothing."""
    order = list(findings.study.footnotes)
    numbers = [str(order.index(note) + 1) for note in (findings.study.rows[row].notes if row in findings.rows else [])]
    return f" [{', '.join(numbers)}]" if numbers else ""


def table_csv(findings: Findings) -> str:
    """One line a row and data set: seeds, mean, sd, interval, the publication's figure."""
    head = ["row", "title", "dataset", "n", "mean", "sd", "low", "high", "published"]
    return _csv(head, (
        [line.name, line.title, dataset, cell.summary.n, *map(_number, (cell.summary.mean, cell.summary.sd,
         cell.low, cell.high, cell.paper))]
        for line in findings.lines for dataset, cell in line.cells.items()
    ))  # fmt: skip


def runs_csv(findings: Findings) -> str:
    """One line a run: its figures, its seconds, its folder and the code that made it."""
    head = [
        "row",
        "dataset",
        "seed",
        *METRICS,
        "test_normal",
        "test_anomalous",
        "seconds",
        "scoring_seconds",
        "peak_gb",
    ]
    head += ["source", "budget", "code", "run"]
    return _csv(head, (
        [*key, *(_number(result.figure(metric)) for metric in METRICS), int((result.label == 0).sum()),
         int(result.label.sum()), *map(_number, (_seconds(result), result.facts.get("scoring_seconds"),
         _memory(result))), *(result.facts.get(word, "") for word in ("source", "budget", "code")), result.run]
        for key, result in findings.results.items()
    ))  # fmt: skip


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
        _mean(_seconds(run) for run in runs),
        _mean(run.facts.get("scoring_seconds") for run in runs),
        _mean(start.get("seconds") for start in starts),
        max((m for run in runs if (m := _memory(run)) is not None), default=None),
    )


def _seconds(run: Result) -> float | None:
    seconds: dict[str, float] = run.facts.get("seconds") or {}
    return sum(seconds.values()) if seconds else None


def _memory(run: Result) -> float | None:
    peak = run.facts.get("peak_gb") or {}
    return peak.get("gpu") or peak.get("ram")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _csv(head: list[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
