"""The page of a study: a self-contained HTML file, with its tables as Markdown and CSV, made from run folders alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.metrics.comparison import Summary, summary
from anomaly_lab.reports import html
from anomaly_lab.reports.charts import rate
from anomaly_lab.reports.html import Banner, whole
from anomaly_lab.studies.advice import advice
from anomaly_lab.studies.decisions import FIGURES, decisions, gained, gains
from anomaly_lab.studies.findings import Findings
from anomaly_lab.studies.foreseen import foreseen, pooled
from anomaly_lab.studies.health import relations
from anomaly_lab.studies.intervals import over_runs, undefined
from anomaly_lab.studies.page import plots, table
from anomaly_lab.studies.page.gallery import CASES_PER_CLASS, gallery
from anomaly_lab.studies.results import METRICS, Result


def write(findings: Findings, folder: Path) -> Path:
    """Write index.html, table.md, table.csv and runs.csv into a folder, and return the path of the page.

    Args:
        findings: results of the study.
        folder: is made if it does not exist.

    Examples:
        >>> import tempfile
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write(Findings(study, results={}), Path(folder))
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['index.html', 'runs.csv', 'table.csv', 'table.md']
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "table.md", table.markdown(findings))
    write_atomic(folder / "table.csv", table.table_csv(findings))
    write_atomic(folder / "runs.csv", table.runs_csv(findings))
    write_atomic(folder / "index.html", render(findings))
    return folder / "index.html"


def render(findings: Findings) -> str:
    """Render the page as HTML text.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> "<h1>Toy</h1>" in render(Findings(study, results={}))
        True
    """
    study = findings.study
    before = {dataset: told for dataset in study.datasets if (told := foreseen(findings, dataset))}
    decided = {dataset: made for dataset in study.datasets if (made := decisions(findings, dataset))}
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
            related={dataset: related for dataset in study.datasets if (related := relations(findings, dataset))},
            advice={
                dataset: said for dataset in study.datasets if study.advice and (said := advice(findings, dataset))
            },
            foreseen=before,
            foreseen_plots=[plots.planted(found, study.datasets[name].title) for name, found in before.items()],
            pooled=pooled(before),
            galleries={dataset: shown for dataset in study.datasets if (shown := gallery(findings, dataset)).strips},
            plots={dataset: plots.curves_and_scores(findings, dataset) for dataset in study.datasets},
            counts={dataset: counts(findings, dataset) for dataset in study.datasets},
            intervals=table.intervals(findings),
            of_classes={dataset: found for dataset in study.datasets if (found := findings.classes(dataset))},
            compared=unweighted(findings),
            shares=gained(findings),
            rules=sorted({rule for decisions_table in decided.values() for rule in decisions_table.rules}),
        )
    )


def unweighted(findings: Findings) -> dict[str, list[tuple[str, dict[str, Summary]]]]:
    """Return by data set with classes the unweighted precision, recall and F1 of each row and baseline.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> unweighted(Findings(study, results={}))
        {}
    """
    by_dataset = {}
    for dataset in findings.study.datasets:
        if findings.classes(dataset) is None:
            continue
        runs = {name: findings.of(name, dataset) for name in findings.rows}
        runs |= {name: findings.baseline(name, dataset) for name in findings.baselines}
        by_dataset[dataset] = [
            (findings.title(name), {title: _over(of_name.values(), f"unweighted_{title.lower()}")
                                    for title in ("Precision", "Recall", "F1")})
            for name, of_name in runs.items() if of_name
        ]  # fmt: skip
    return by_dataset


def _over(runs: Iterable[Result], metric: str) -> Summary:
    known = [run for run in runs if not math.isnan(run.figure(metric))]
    found = over_runs(known, [metric], metric)[metric] if known else undefined(math.nan)
    return summary([run.figure(metric) for run in known])._replace(low=found.low, high=found.high)


def banners(findings: Findings) -> list[Banner]:
    """List the warnings and notes that stand at the top of the page.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Key, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> findings = Findings(study, results={}, missing={Key("vae", "set", 0): "not trained yet"})
        >>> [banner.title for banner in banners(findings)]
        ['Incomplete']
    """
    facts = [result.facts for result in findings.results.values()]
    notices = []
    if any(fact.get("source") == "twin" for fact in facts):
        notices.append(Banner("warning", "† Synthetic twin", table.TWIN))
    for caveat, rows in findings.caveats().items():
        notices.append(Banner("warning", f"† Read with care: {', '.join(rows)}", caveat))
    for budget in sorted({str(fact.get("budget")) for fact in facts} - {"paper"}):
        text = "Training is shorter than in the publication, so only the order of the methods can be compared with it."
        notices.append(Banner("note", f"Reduced budget: {budget}", text))
    stale = [
        row.title
        for name, row in findings.rows.items()
        if any(len(_codes(findings, name, dataset)) > 1 for dataset in findings.study.datasets)
    ]
    if stale:
        text = f"The runs of {', '.join(stale)} were made with different versions of the code."
        notices.append(Banner("warning", "Mixed code", text))
    for dataset, each in findings.study.datasets.items():
        notices += [Banner("warning", f"Data: {each.title}", remark) for remark in findings.remarks(dataset)]
    for dataset, sentence in findings.few().items():
        notices.append(Banner("warning", f"Few patients: {findings.study.datasets[dataset].title}", sentence))
    if findings.missing:
        text = f"Runs without a result: {len(findings.missing)}; they are listed at the end."
        notices.append(Banner("warning", "Incomplete", text))
    return notices


def counts(findings: Findings, dataset: str) -> str:
    """Describe how many images of a data set its first run trained on and evaluated.

    Examples:
        >>> import numpy as np
        >>> from anomaly_lab.studies.plan import DataSet, Key, Row, Study
        >>> from anomaly_lab.studies.results import Result
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> ids, facts = np.array(["a", "b"]), {"data": {"counts": {"train": {"normal": 80}}}}
        >>> result = Result(Path("run"), ids, ids, np.array([0, 1]), np.array([0.1, 0.9]), {}, facts)
        >>> counts(Findings(study, {Key("vae", "set", 0): result}), "set")
        '80 normal images for training, 1 normal and 1 anomalous images for testing'
    """
    runs = [result for key, result in findings.results.items() if key.dataset == dataset]
    if not runs:
        return "no results"
    train = ((runs[0].facts.get("data") or {}).get("counts") or {}).get("train") or {}
    label = runs[0].label
    test = f"{whole(int((label == 0).sum()))} normal and {whole(int(label.sum()))} anomalous images for testing"
    labelled = f" and {whole(train['anomalous'])} anomalous" if train.get("anomalous") else ""
    return f"{whole(train.get('normal'))} normal{labelled} images for training, {test}"


def p_value(value: float) -> str:
    """Format a p-value; NaN becomes a dash.

    Examples:
        >>> p_value(0.0123), p_value(0.0001), p_value(math.nan)
        ('.012', '< .001', '–')
    """
    return "–" if math.isnan(value) else "< .001" if value < 0.001 else rate(value)


def signed(value: float, digits: int = 3) -> str:
    """Format a difference with its sign; NaN becomes a dash.

    Examples:
        >>> signed(0.0123), signed(-0.0123), signed(math.nan)
        ('+.012', '−.012', '–')
    """
    return ("+" if value > 0 else "") + rate(value, digits)


def _codes(findings: Findings, row: str, dataset: str) -> set[str]:
    """Return the fingerprints of the code of a row's runs on a data set; other data sets use other code anyway."""
    return {result.code for result in findings.of(row, dataset).values()}


def _environment() -> Environment:
    environment = html.environment("studies.page", rate=rate, signed=signed, words=table.words, p=p_value)
    environment.globals |= {
        "metrics": METRICS,
        "notes": table.notes,
        "figures": FIGURES,
        "each": CASES_PER_CLASS,
        "decided_panel": plots.decided,
        "scatter": plots.scatter,
        "axes_of": plots.axes,
        "spark": plots.spark,
    }
    return environment
