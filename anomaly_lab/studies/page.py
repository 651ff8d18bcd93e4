"""The page of a study: one self-contained HTML file beside its Markdown and CSV, made from records alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jinja2 import Environment

from anomaly_lab.evaluation import pages
from anomaly_lab.evaluation.charts import Panel, rate
from anomaly_lab.evaluation.figures import (
    Axis,
    Band,
    Box,
    Group,
    Series,
    box_plot,
    line_chart,
    padded,
    stacked_histogram,
)
from anomaly_lab.evaluation.pages import Banner, whole
from anomaly_lab.metrics import ranking
from anomaly_lab.runs import write_atomic
from anomaly_lab.studies import table
from anomaly_lab.studies.table import Findings, Result

GRID = np.linspace(0, 1, 101)  # false alarm rates at which curves are averaged
SHOWN = 5000  # scores of a class in a histogram
DOT = 1.0 / 3  # of a curve's step, room beside its first and last point


def write(findings: Findings, folder: Path) -> Path:
    """Write index.html, table.md, table.csv and runs.csv into a folder; the page's path is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "table.md", table.markdown(findings))
    write_atomic(folder / "table.csv", table.table_csv(findings))
    write_atomic(folder / "runs.csv", table.runs_csv(findings))
    write_atomic(folder / "index.html", render(findings))
    return folder / "index.html"


def render(findings: Findings) -> str:
    """The page as text."""
    study = findings.study
    return (
        _environment()
        .get_template("study.html.j2")
        .render(
            findings=findings,
            study=study,
            banners=banners(findings),
            lines=findings.lines(),
            tests=findings.tests(),
            agreement=findings.agreement(),
            costs=findings.costs(),
            boxes=[boxes(findings, dataset) for dataset in study.datasets],
            curves=[curve for dataset in study.datasets if (curve := curve_over(findings, dataset))],
            galleries={dataset: gallery(findings, dataset) for dataset in study.datasets},
            counts={dataset: counts(findings, dataset) for dataset in study.datasets},
            intervals=table.INTERVALS,
        )
    )


def banners(findings: Findings) -> list[Banner]:
    """What a reader must know before any number."""
    facts = [result.facts for result in findings.results.values()]
    found = []
    if any(fact.get("source") == "twin" for fact in facts):
        text = "Some of these runs saw generated pictures, not patients: the numbers say nothing about medicine."
        found.append(Banner("warning", "Synthetic twin", text))
    for caveat, rows in _caveats(findings).items():
        found.append(Banner("warning", f"Not the method itself: {', '.join(rows)}", caveat))
    for budget in sorted({str(fact.get("budget")) for fact in facts} - {"paper"}):
        text = "Trainings are shorter than the publication’s, so only the order of the methods compares."
        found.append(Banner("note", f"Reduced budget: {budget}", text))
    stale = [row.title for name, row in findings.rows.items() if len(_codes(findings, name)) > 1]
    if stale:
        found.append(Banner("warning", "Mixed code", f"Runs of {', '.join(stale)} were made by different code."))
    if findings.missing:
        text = f"Runs without a result: {len(findings.missing)}; they are listed at the end."
        found.append(Banner("warning", "Incomplete", text))
    return found


def _caveats(findings: Findings) -> dict[str, list[str]]:
    """What the detectors say of themselves, and the rows it is true of."""
    found: dict[str, list[str]] = {}
    for key, result in findings.results.items():
        for caveat in (result.facts.get("detector") or {}).get("caveats", []):
            title = findings.rows[key.row].title
            if title not in found.setdefault(caveat, []):
                found[caveat].append(title)
    return found


def boxes(findings: Findings, dataset: str) -> Panel:
    """The AUROC of every row over its seeds, the publication's as a tick."""
    rows = []
    for line in findings.lines():
        cell = line.cells[dataset]
        style = "series-2" if line.floor else "series-0" if line.name == findings.reference else "series-1"
        text = f"{rate(cell.summary.mean)}" + (f" ± {rate(cell.summary.sd)}" if cell.summary.n > 1 else "")
        rows.append(Box(line.title, list(cell.values.values()), cell.paper, text, style))
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


def gallery(findings: Findings, dataset: str) -> tuple[list[Panel], list[Panel]]:
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
        kept = np.linspace(0, len(values) - 1, SHOWN).round().astype(int) if len(values) > SHOWN else slice(None)
        groups.append(Group(name, values[kept].tolist(), style))
    note = f"Seed {seed}. Each class is scaled to its own highest bar."
    return Panel(f"{title}: scores", stacked_histogram(groups, "anomaly score"), note)


def counts(findings: Findings, dataset: str) -> str:
    """How many images of a data set the first run trained on and judged."""
    runs = [result for key, result in findings.results.items() if key.dataset == dataset]
    if not runs:
        return "no results"
    train = (((runs[0].facts.get("data") or {}).get("counts") or {}).get("train") or {}).get("normal")
    label = runs[0].label
    judged = f"{whole(int((label == 0).sum()))} normal and {whole(int(label.sum()))} anomalous images judged"
    return f"{whole(train)} normal images trained on, {judged}"


def p_value(value: float) -> str:
    """As .012 or < .001; a dash where there was nothing to test."""
    return "–" if math.isnan(value) else "< .001" if value < 0.001 else rate(value)


def _steps(result: Result) -> tuple[ranking.Floats, ranking.Floats]:
    """Rates of a curve that may be interpolated: at a false alarm rate that comes often, the highest recall counts."""
    false_alarms, found = ranking.roc_curve(result.label, result.score)
    last = np.append(np.diff(false_alarms) > 0, True)
    return np.append(0.0, false_alarms[last]), np.append(0.0, found[last])


def _codes(findings: Findings, row: str) -> set[str]:
    return {str(result.facts.get("code")) for key, result in findings.results.items() if key.row == row}


def _environment() -> Environment:
    environment = pages.environment("studies", rate=rate, words=table.words, p=p_value)
    environment.globals |= {"metrics": table.METRICS, "notes": table.notes}
    return environment
