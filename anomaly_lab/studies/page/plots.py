"""The charts of a study."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from anomaly_lab.metrics import ranking
from anomaly_lab.reports.charts import Panel, rate
from anomaly_lab.reports.svg import (
    Axis,
    Band,
    Box,
    Group,
    Series,
    box_plot,
    line_chart,
    padded,
    stacked_histogram,
    tick_label,
    ticks,
)
from anomaly_lab.studies.decisions import FIGURES, Decisions, Gain
from anomaly_lab.studies.findings import MARK, Findings
from anomaly_lab.studies.health import Relation
from anomaly_lab.studies.results import Result

GRID = np.linspace(0, 1, 101)  # false alarm rates at which curves are averaged
MAX_PLOTTED_SCORES = 5000  # scores of a class in a histogram
DOT = 1.0 / 3  # of a curve's step, room beside its first and last point
LINE = 50  # letters of a chart's line
SPARK = 132  # pixels of a chart in a table's cell
LABEL = 15  # half of the widest number under it, pixels


def boxes(findings: Findings, dataset: str) -> Panel:
    """The AUROC of every row over its seeds, the publication's as a tick."""
    rows = []
    for line in findings.lines:
        cell = line.cells[dataset]
        style = "series-2" if line.floor else "series-0" if line.name == findings.reference else "series-1"
        text = f"{rate(cell.summary.mean)}" + (f" ± {rate(cell.summary.sd)}" if cell.summary.n > 1 else "")
        rows.append(Box(_fitting(line.title, text), list(cell.values.values()), cell.paper, text, style))
    seen = [value for row in rows for value in (*row.values, *([] if row.mark is None else [row.mark]))]
    low, high = padded(seen or [0.0, 1.0])
    svg = box_plot(rows, Axis("AUROC", max(0.0, low), min(1.01, high)), f"{findings.study.source}")
    return Panel(findings.study.datasets[dataset].title, svg)


def curve_over(findings: Findings, dataset: str) -> Panel | None:
    """AUROC over the rows' x, a band from the least to the greatest of the seeds; None where no row has an x."""
    points = sorted(
        (row.x, findings.of(name, dataset), row.paper.get(dataset))
        for name, row in findings.rows.items()
        if row.x is not None
    )
    drawn = [(x, [result.figure() for result in runs.values()]) for x, runs, _ in points if runs]
    published = [(x, paper) for x, _, paper in points if paper is not None]
    if not drawn or findings.study.curve is None:
        return None
    at, values = [x for x, _ in drawn], [over for _, over in drawn]
    series = [Series("Mean of the seeds", at, [float(np.mean(over)) for over in values], "series-0")]
    series += [Series("", [x], [value], "series-0") for x, over in drawn for value in over]
    series += [
        Series(findings.study.source if i == 0 else "", [x], [y], "series-1") for i, (x, y) in enumerate(published)
    ]
    band = Band(at, [min(over) for over in values], [max(over) for over in values], "series-0")
    low, high = padded([v for over in values for v in over] + [y for _, y in published])
    room = (at[-1] - at[0]) / max(1, len(at) - 1) * DOT or 1.0
    x_axis = Axis(findings.study.curve, at[0] - room, at[-1] + room)
    svg = line_chart(series, x_axis, Axis("AUROC", low, min(1.01, high)), 260, [band])
    return Panel(findings.study.datasets[dataset].title, svg)


def decided(found: Decisions, metric: str) -> Panel:
    """A figure at the threshold of every row and floor; the tick is what a rule reaches that looks at no image."""
    rows = []
    for line in found.lines:
        if line.kind != "trivial":
            over = line.figure(metric)
            style = "series-2" if line.kind == "floor" else "series-1" if found.trivial(line, metric) else "series-0"
            values = [value for value in line.values[metric] if not math.isnan(value)]
            text = rate(over.mean)
            rows.append(Box(_fitting(line.title, text), values, found.best[metric], text, style))
    low, high = padded([found.best[metric], *(value for row in rows for value in row.values)])
    axis = Axis(FIGURES[metric], max(0.0, low), min(1.01, high))
    return Panel(FIGURES[metric], box_plot(rows, axis, f"best trivial rule, {rate(found.best[metric])}"))


def axes(gains: Mapping[str, Mapping[str, Gain]]) -> dict[str, Axis]:
    """What the charts of a metric share, by metric: room for all rows' intervals, and 0."""
    ends: dict[str, list[float]] = {}
    for by in gains.values():
        for metric, gain in by.items():
            known = [end for end in (gain.mean, gain.low, gain.high) if math.isfinite(end)]
            ends.setdefault(metric, [0.0]).extend(known)
    return {metric: Axis("", *padded(found)) for metric, found in ends.items()}


def spark(gain: Gain | None, axis: Axis, marked: bool = False) -> str:
    """A gain with its interval beside the line of no difference; hollow where the interval holds 0.

    Without a gain it is the axis, with its numbers.
    """

    def px(value: float) -> float:
        return 5 + (value - axis.low) / (axis.high - axis.low) * (SPARK - 10)

    style = "series-1" if marked else "series-0"
    parts = [f'<path class="chance" d="M{px(0):.1f} 0v18"/>']
    if gain is None:
        parts = [f'<path class="axis" d="M5 1H{SPARK - 5}"/>']
        marks = ticks(axis.low, axis.high, 4)
        parts += [f'<path class="axis" d="M{px(tick):.1f} 1v4"/>' for tick in marks]
        for tick in sorted({marks[0], marks[-1]}):  # there is no room for more
            within = min(max(px(tick), LABEL), SPARK - LABEL)
            parts += [f'<text class="middle muted" x="{within:.1f}" y="17">{tick_label(tick)}</text>']
    elif math.isfinite(gain.mean):
        if math.isfinite(gain.low):
            parts += [f'<path class="whisker {style}" d="M{px(gain.low):.1f} 9H{px(gain.high):.1f}"/>']
        hollow = "" if gain.settled else " hollow"
        parts += [f'<circle class="dot {style}{hollow}" cx="{px(gain.mean):.1f}" cy="9" r="4.5"/>']
    head = f'<svg class="spark" aria-hidden="true" viewBox="0 0 {SPARK} 18" width="{SPARK}" height="18">'
    return f"{head}{''.join(parts)}</svg>"


def scatter(relation: Relation, findings: Findings) -> Panel:
    """A measure of health against the AUROC, a dot a run."""
    marks = [findings.results[key].marked for key in relation.keys]
    names = {False: "as the method is", True: "marked †"} if len(set(marks)) > 1 else {}
    series = []
    for marked, x, y in sorted(zip(marks, relation.value, relation.auroc, strict=True), reverse=True):
        series.append(Series(names.pop(marked, ""), [x], [y], "series-1" if marked else "series-0"))
    x_axis = Axis(relation.title, *padded(relation.value))
    low, high = padded(relation.auroc)
    return Panel(relation.title, line_chart(series, x_axis, Axis("AUROC", low, min(1.01, high))), relation.sentence)


def curves_and_scores(findings: Findings, dataset: str) -> tuple[list[Panel], list[Panel]]:
    """The ROC curve of each row over its seeds, and the scores of each row's first seed by class."""
    runs = {row.title: found for name, row in findings.rows.items() if (found := findings.of(name, dataset))}
    curves = [roc(title, list(found.values())) for title, found in runs.items()]
    return curves, [histogram(title, *next(iter(found.items()))) for title, found in runs.items()]


def roc(title: str, runs: list[Result]) -> Panel:
    """The mean curve of a row's seeds with a band from the least to the greatest."""
    curves = np.array([np.interp(GRID, *_steps(result)) for result in runs])
    x = GRID.tolist()
    mean, low, high = (values.tolist() for values in (curves.mean(0), curves.min(0), curves.max(0)))
    series = [Series("", [0, 1], [0, 1], "reference"), Series("", x, mean, "series-0")]
    bands = [Band(x, low, high, "series-0")] if len(runs) > 1 else []
    svg = line_chart(series, Axis("false alarms among normals", 0, 1), Axis("recall", 0, 1), 230, bands)
    mean_auroc = np.mean([result.figure() for result in runs])
    return Panel(
        f"{title}: ROC", svg, f"AUROC {rate(float(mean_auroc))}, {len(runs)} seed{'s' if len(runs) > 1 else ''}"
    )


def histogram(title: str, seed: int, result: Result) -> Panel:
    """Scores of the test split by class, evenly thinned where there are many."""
    groups = []
    for label, (name, style) in enumerate((("Normal", "normal"), ("Anomalous", "anomalous"))):
        values = np.sort(result.score[result.label == label])
        kept = (
            np.linspace(0, len(values) - 1, MAX_PLOTTED_SCORES).round().astype(int)
            if len(values) > MAX_PLOTTED_SCORES
            else slice(None)
        )
        groups.append(Group(name, values[kept].tolist(), style))
    note = f"Seed {seed}. Each class is scaled to its own highest bar."
    return Panel(f"{title}: scores", stacked_histogram(groups, "anomaly score"), note)


def _fitting(title: str, text: str) -> str:
    """A title that leaves room for the text at the end of its line; its MARK stays."""
    room, mark = LINE - len(text), MARK if title.endswith(MARK) else ""
    return title if len(title) <= room else title[: room - len(mark) - 1].rstrip(" ,") + "…" + mark


def _steps(result: Result) -> tuple[ranking.Floats, ranking.Floats]:
    """Rates of a curve that may be interpolated: at a false alarm rate that comes often, the highest recall counts."""
    false_alarms, found = ranking.roc_curve(result.label, result.score)
    last = np.append(np.diff(false_alarms) > 0, True)
    return np.append(0.0, false_alarms[last]), np.append(0.0, found[last])
