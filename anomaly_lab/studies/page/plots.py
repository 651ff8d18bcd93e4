"""The charts of a study's page."""

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
from anomaly_lab.studies.foreseen import Foreseen
from anomaly_lab.studies.health import Relation
from anomaly_lab.studies.plan import Repeat
from anomaly_lab.studies.results import Result

GRID = np.linspace(0, 1, 101)  # false-positive rates at which ROC curves are averaged
MAX_PLOTTED_SCORES = 5000  # per class in a histogram
DOT = 1.0 / 3  # margin beside a curve's first and last point, as a fraction of the mean step between points
LINE = 50  # characters that fit in a line of a chart
SPARK = 132  # width in pixels of a chart in a table cell
LABEL = 15  # half the width in pixels of the widest number under it


def boxes(findings: Findings, dataset: str) -> Panel:
    """Plot the study's metric of every row and baseline over its repeats, with the publication's as a tick.

    Args:
        findings: results of the study.
        dataset: name of a data set of the study.

    Examples:
        >>> from pathlib import Path
        >>> from anomaly_lab.studies.plan import DataSet, Key, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> result = Result(Path("run"), ids, ids, label, np.array([0.1, 0.4, 0.3, 0.9]), {}, {})
        >>> panel = boxes(Findings(study, {Key("vae", "set", seed): result for seed in range(3)}), "set")
        >>> ".750 ± .000" in panel.svg
        True
    """
    rows = []
    for line in findings.lines:
        cell = line.cells[dataset]
        style = "series-2" if line.is_baseline else "series-0" if line.name == findings.reference else "series-1"
        text = f"{rate(cell.summary.mean)}" + (f" ± {rate(cell.summary.sd)}" if cell.summary.n > 1 else "")
        rows.append(Box(_fitting(line.title, text), list(cell.values.values()), cell.paper, text, style))
    plotted = [value for row in rows for value in (*row.values, *([] if row.mark is None else [row.mark]))]
    low, high = padded(plotted or [0.0, 1.0])
    svg = box_plot(rows, Axis(findings.metric, max(0.0, low), min(1.01, high)), f"{findings.study.source}")
    return Panel(findings.study.datasets[dataset].title, svg)


def curve_over(findings: Findings, dataset: str) -> Panel | None:
    """Plot the metric over the rows' `x`, with a band from the lowest to the highest seed; None if no row has an `x`.

    Args:
        findings: results of the study.
        dataset: name of a data set of the study.

    Examples:
        >>> from pathlib import Path
        >>> from anomaly_lab.studies.plan import DataSet, Key, Row, Study
        >>> rows = {f"w{x}": Row(f"Width {x}", "vae_toy", x=x) for x in (8, 16)}
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows=rows, curve="width")
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> result = Result(Path("run"), ids, ids, label, np.array([0.1, 0.4, 0.3, 0.9]), {}, {})
        >>> panel = curve_over(Findings(study, {Key(row, "set", 0): result for row in rows}), "set")
        >>> "AUROC against width" in panel.svg
        True
    """
    with_x = ((row.x, findings.of(name, dataset), row.paper.get(dataset)) for name, row in findings.rows.items()
              if row.x is not None)  # fmt: skip
    points = sorted(with_x, key=lambda point: point[0])
    metric = findings.study.metric
    figures = ((x, [result.figure(metric) for result in runs.values()]) for x, runs, _ in points)
    known = ((x, [value for value in values if math.isfinite(value)]) for x, values in figures)
    measured = [(x, values) for x, values in known if values]
    published = [(x, paper) for x, _, paper in points if paper is not None]
    if not measured or findings.study.curve is None:
        return None
    at, values = [x for x, _ in measured], [aurocs for _, aurocs in measured]
    series = [Series("Mean of the seeds", at, [float(np.mean(aurocs)) for aurocs in values], "series-0")]
    series += [Series("", [x], [auroc], "series-0") for x, aurocs in measured for auroc in aurocs]
    series += [
        Series(findings.study.source if i == 0 else "", [x], [y], "series-1") for i, (x, y) in enumerate(published)
    ]
    band = Band(at, [min(aurocs) for aurocs in values], [max(aurocs) for aurocs in values], "series-0")
    low, high = padded([auroc for aurocs in values for auroc in aurocs] + [y for _, y in published])
    margin = (at[-1] - at[0]) / max(1, len(at) - 1) * DOT or 1.0
    x_axis = Axis(findings.study.curve, at[0] - margin, at[-1] + margin)
    svg = line_chart(series, x_axis, Axis(findings.metric, low, min(1.01, high)), 260, [band])
    return Panel(findings.study.datasets[dataset].title, svg)


def decided(table: Decisions, metric: str) -> Panel:
    """Plot a metric at the threshold for every row and baseline, with that of the better trivial rule as a tick.

    Args:
        table: decisions on a data set.
        metric: of FIGURES, with an entry in `table.best`.

    Examples:
        >>> from anomaly_lab.studies.decisions import Decision
        >>> line = Decision("vae", "VAE", "row", ["quantile"], {"accuracy": [0.7, 0.8]}, interval={})
        >>> panel = decided(Decisions([line], best={"accuracy": 0.8}), "accuracy")
        >>> panel.title, "best trivial rule, .800" in panel.svg
        ('Accuracy', True)
    """
    rows = []
    for line in table.lines:
        if line.kind != "trivial":
            over_seeds = line.figure(metric)
            style = "series-2" if line.kind == "baseline" else "series-1" if table.trivial(line, metric) else "series-0"
            values = [value for value in line.values[metric] if not math.isnan(value)]
            text = rate(over_seeds.mean)
            rows.append(Box(_fitting(line.title, text), values, table.best[metric], text, style))
    low, high = padded([table.best[metric], *(value for row in rows for value in row.values)])
    axis = Axis(FIGURES[metric], max(0.0, low), min(1.01, high))
    return Panel(FIGURES[metric], box_plot(rows, axis, f"best trivial rule, {rate(table.best[metric])}"))


def axes(gains: Mapping[str, Mapping[str, Gain]]) -> dict[str, Axis]:
    """Return for each metric an axis that holds 0 and the intervals of all rows.

    Args:
        gains: row -> metric -> gain.

    Examples:
        >>> axes({"vae": {"auroc": Gain([0.1], mean=0.1, low=-0.1, high=0.3)}})["auroc"].high.__round__(2)
        0.32
    """
    ends: dict[str, list[float]] = {}
    for by_metric in gains.values():
        for metric, gain in by_metric.items():
            finite = [end for end in (gain.mean, gain.low, gain.high) if math.isfinite(end)]
            ends.setdefault(metric, [0.0]).extend(finite)
    return {metric: Axis("", *padded(values)) for metric, values in ends.items()}


def spark(gain: Gain | None, axis: Axis, marked: bool = False) -> str:
    """Draw a gain with its interval for a table cell, next to the line of no difference.

    Args:
        gain: drawn as a hollow dot if its interval contains 0; None draws the axis with its numbers.
        axis: shared by all rows.
        marked: whether the row has caveats or synthetic data.

    Returns:
        SVG text.

    Examples:
        >>> svg = spark(Gain([0.1], mean=0.1, low=-0.1, high=0.3), Axis("", -0.2, 0.4))
        >>> "hollow" in svg
        True
    """

    def px(value: float) -> float:
        return 5 + (value - axis.low) / (axis.high - axis.low) * (SPARK - 10)

    style = "series-1" if marked else "series-0"
    parts = [f'<path class="chance" d="M{px(0):.1f} 0v18"/>']
    if gain is None:
        parts = [f'<path class="axis" d="M5 1H{SPARK - 5}"/>']
        marks = ticks(axis.low, axis.high, 4)
        parts += [f'<path class="axis" d="M{px(tick):.1f} 1v4"/>' for tick in marks]
        for tick in sorted({marks[0], marks[-1]}):  # only these two numbers fit
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
    """Plot a health measure against the AUROC, one dot per run.

    Args:
        relation: from `health.relations`.
        findings: results of the study.

    Examples:
        On the results of a finished study::

            panels = [scatter(relation, findings) for relation in relations(findings, "headct")]
    """
    marks = [findings.results[key].marked for key in relation.keys]
    names = {False: "without caveats", True: "marked †"} if len(set(marks)) > 1 else {}
    series = []
    for marked, x, y in sorted(zip(marks, relation.value, relation.auroc, strict=True), reverse=True):
        series.append(Series(names.pop(marked, ""), [x], [y], "series-1" if marked else "series-0"))
    x_axis = Axis(relation.title, *padded(relation.value))
    low, high = padded(relation.auroc)
    return Panel(relation.title, line_chart(series, x_axis, Axis("AUROC", low, min(1.01, high))), relation.sentence)


def planted(found: Foreseen, title: str) -> Panel:
    """Plot what methods find of planted lesions against their AUROC on the test split, one dot a method.

    Examples:
        >>> planted(Foreseen(["vae", "gan"], [0.6, 0.7], [0.5, 0.8], math.nan), "Head CT").title
        'Head CT'
    """
    series = [Series("", [x], [y], "series-0") for x, y in zip(found.planted, found.auroc, strict=True)]
    x_axis, (low, high) = Axis("AUROC, planted lesions", *padded(found.planted)), padded(found.auroc)
    note = f"ρ {rate(found.rho, 2)}, {len(found.names)} methods." if math.isfinite(found.rho) else ""
    return Panel(title, line_chart(series, x_axis, Axis("AUROC, test", low, min(1.01, high))), note)


def curves_and_scores(findings: Findings, dataset: str) -> tuple[list[Panel], list[Panel]]:
    """Plot for each row the mean ROC curve over its seeds, and the scores of its first seed by class.

    Args:
        findings: results of the study.
        dataset: name of a data set of the study.

    Examples:
        On the results of a finished study::

            roc_panels, score_panels = curves_and_scores(findings, "headct")
    """
    runs = {row.title: by_seed for name, row in findings.rows.items() if (by_seed := findings.of(name, dataset))}
    repeats = "fold" if findings.study.folds_of(dataset) else "seed"
    both = {title: [run for run in by_seed.values() if 0 < run.label.sum() < len(run.label)]
            for title, by_seed in runs.items()}  # fmt: skip
    curves = [roc(title, of_both, repeats) for title, of_both in both.items() if of_both]
    return curves, [histogram(title, *next(iter(by_seed.items()))) for title, by_seed in runs.items()]


def roc(title: str, runs: list[Result], repeats: str = "seed") -> Panel:
    """Plot the mean ROC curve of a row's runs, with a band from the lowest to the highest.

    Args:
        title: of the row.
        runs: one per repeat, at least one.
        repeats: what a repeat is called.

    Examples:
        >>> from pathlib import Path
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> result = Result(Path("run"), ids, ids, label, np.array([0.1, 0.4, 0.3, 0.9]), {}, {})
        >>> roc("VAE", [result]).note
        'AUROC .750, 1 seed'
    """
    curves = np.array([np.interp(GRID, *_steps(result)) for result in runs])
    x = GRID.tolist()
    mean, low, high = (values.tolist() for values in (curves.mean(0), curves.min(0), curves.max(0)))
    series = [Series("", [0, 1], [0, 1], "reference"), Series("", x, mean, "series-0")]
    bands = [Band(x, low, high, "series-0")] if len(runs) > 1 else []
    svg = line_chart(series, Axis("false-positive rate", 0, 1), Axis("recall", 0, 1), 230, bands)
    mean_auroc = np.mean([result.figure() for result in runs])
    return Panel(f"{title}: ROC", svg, f"AUROC {rate(float(mean_auroc))}, {len(runs)} {repeats}{'s' * (len(runs) > 1)}")


def histogram(title: str, seed: Repeat, result: Result) -> Panel:
    """Plot the scores of the test split by class; of more than MAX_PLOTTED_SCORES, evenly spaced ones.

    Args:
        title: of the row.
        seed: of the run, and its fold.
        result: of the run.

    Examples:
        >>> from pathlib import Path
        >>> ids, label = np.arange(4).astype(str), np.array([0, 0, 1, 1])
        >>> result = Result(Path("run"), ids, ids, label, np.array([0.1, 0.4, 0.3, 0.9]), {}, {})
        >>> "Normal (2)" in histogram("VAE", 0, result).svg
        True
    """
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
    """Shorten a title so that the text fits at the end of its line; keep its MARK."""
    room, mark = LINE - len(text), MARK if title.endswith(MARK) else ""
    return title if len(title) <= room else title[: room - len(mark) - 1].rstrip(" ,") + "…" + mark


def _steps(result: Result) -> tuple[ranking.Floats, ranking.Floats]:
    """Return an ROC curve that can be interpolated: one point per false-positive rate, with the highest recall."""
    false_positive_rate, recall = ranking.roc_curve(result.label, result.score)
    last = np.append(np.diff(false_positive_rate) > 0, True)
    return np.append(0.0, false_positive_rate[last]), np.append(0.0, recall[last])
