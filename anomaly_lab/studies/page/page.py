"""The page of a study: one self-contained HTML file beside its Markdown and CSV, made from records alone."""

from __future__ import annotations

import math
from pathlib import Path

from jinja2 import Environment

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.reports import html
from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.html import Banner, whole
from anomaly_lab.studies.decisions import FIGURES, GAIN_METRICS, decisions, gains
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.health import relations
from anomaly_lab.studies.page import plots, table
from anomaly_lab.studies.page.gallery import CASES_PER_CLASS, gallery
from anomaly_lab.studies.results import METRICS


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
    decided = {dataset: found for dataset in study.datasets if (found := decisions(findings, dataset))}
    return (
        _environment()
        .get_template("study.html.j2")
        .render(
            findings=findings,
            study=study,
            banners=banners(findings),
            lines=findings.lines,
            tests=findings.tests(),
            agreement=findings.agreement() if findings.published else {},
            costs=findings.costs(),
            boxes=[plots.boxes(findings, dataset) for dataset in study.datasets],
            curves=[curve for dataset in study.datasets if (curve := plots.curve_over(findings, dataset))],
            decided=decided,
            gained={dataset: by for dataset in study.datasets if (by := gains(findings, dataset))},
            related={dataset: some for dataset in study.datasets if (some := relations(findings, dataset))},
            galleries={dataset: hung for dataset in study.datasets if (hung := gallery(findings, dataset)).strips},
            plots={dataset: plots.curves_and_scores(findings, dataset) for dataset in study.datasets},
            counts={dataset: counts(findings, dataset) for dataset in study.datasets},
            intervals=table.INTERVALS,
            rules=sorted({rule for found in decided.values() for rule in found.rules}),
        )
    )


def banners(findings: Findings) -> list[Banner]:
    """What a reader must know before any number."""
    facts = [result.facts for result in findings.results.values()]
    found = []
    if any(fact.get("source") == "twin" for fact in facts):
        found.append(Banner("warning", "† Synthetic twin", table.TWIN))
    for caveat, rows in findings.caveats().items():
        found.append(Banner("warning", f"† Read with care: {', '.join(rows)}", caveat))
    for budget in sorted({str(fact.get("budget")) for fact in facts} - {"paper"}):
        text = "Trainings are shorter than the publication’s, so only the order of the methods compares."
        found.append(Banner("note", f"Reduced budget: {budget}", text))
    stale = [
        row.title
        for name, row in findings.rows.items()
        if any(len(_codes(findings, name, dataset)) > 1 for dataset in findings.study.datasets)
    ]
    if stale:
        found.append(Banner("warning", "Mixed code", f"Runs of {', '.join(stale)} were made by different code."))
    if findings.missing:
        text = f"Runs without a result: {len(findings.missing)}; they are listed at the end."
        found.append(Banner("warning", "Incomplete", text))
    return found


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


def signed(value: float, digits: int = 3) -> str:
    """A difference as +.012 or −.012; a dash where there is none."""
    return ("+" if value > 0 else "") + rate(value, digits)


def _codes(findings: Findings, row: str, dataset: str) -> set[str]:
    """Fingerprints of the code that made a row's runs; another data set is other code anyway."""
    return {result.code for result in findings.of(row, dataset).values()}


def _environment() -> Environment:
    environment = html.environment("studies.page", rate=rate, signed=signed, words=table.words, p=p_value)
    environment.globals |= {
        "metrics": METRICS,
        "notes": table.notes,
        "figures": FIGURES,
        "each": CASES_PER_CLASS,
        "shares": GAIN_METRICS,
        "decided_panel": plots.decided,
        "scatter": plots.scatter,
        "axes_of": plots.axes,
        "spark": plots.spark,
    }
    return environment
