"""The tables of a study as Markdown and CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable

from anomaly_lab.experiment.tables import to_csv
from anomaly_lab.reports.charts import rate
from anomaly_lab.studies.findings import Cell, Findings
from anomaly_lab.studies.results import METRICS

TWIN = (
    "Some of these runs used generated images instead of images of patients: their numbers say nothing about clinical "
    "performance."
)
INTERVALS = (
    "Mean ± standard deviation over seeds. [ ]: 95 % interval for new patients and new trainings, on the logit scale: "
    "what each patient contributes to the seeds that judged it, and how the seeds vary beyond that (Obuchowski and "
    "Rockette 1995; Hillis 2007). A single seed has the interval for new patients alone ({single}). Images of a "
    "patient may be correlated. “These patients only”: Student’s 95 % interval of the mean, which asks how other "
    "splits of the same patients and other trainings would come out; as seeds share their patients, it says too little "
    "of others (five seeds: it holds in about 71 of 100 studies). With fewer than five patients of a class there is no "
    "interval."
)
SINGLE = {
    True: "DeLong’s, by patient: Obuchowski 1997",
    False: "bootstrap over patients",
}
OTHERS = " The patients’ part is from a bootstrap that draws the same patients for all seeds."
FOLDS = (
    "Folds: each patient is judged once a seed, and scores are compared within a fold only (LeDell et al. 2015). "
    "Student’s interval allows for the training cases that folds share by the correction of Nadeau and Bengio (2003), "
    "s² (1/n + 1/(folds − 1))."
)


def markdown(findings: Findings) -> str:
    """Format the main table with its footnotes as Markdown.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> markdown(Findings(study, results={})).splitlines()[6]  # no run is finished yet
        '| VAE | – |'
    """
    datasets = findings.study.datasets
    columns = 2 if findings.published else 1
    head = [
        findings.metric,
        *(title for d in datasets.values() for title in (f"{d.title}, here", "published")[:columns]),
    ]
    lines = [f"# {findings.study.title}", "", findings.study.question, "", _row(head), _row(["---"] * len(head))]
    for line in findings.lines:
        cells = [text for cell in line.cells.values() for text in (words(cell), rate(cell.paper, 2))[:columns]]
        lines.append(_row([line.title + notes(findings, line.name), *cells]))
    lines += ["", intervals(findings), ""]
    lines += [f"{datasets[name].title}: {sentence}" for name, sentence in findings.few().items()]
    lines += [f"{datasets[name].title}: {remark}" for name in datasets for remark in findings.remarks(name)]
    lines += [line for dataset in datasets for line in _of_classes(findings, dataset)]
    lines += [f"[{i}] {text}" for i, text in enumerate(findings.study.footnotes.values(), 1)]
    if any(result.facts.get("source") == "twin" for result in findings.results.values()):
        lines.append(f"† {TWIN}")
    lines += [f"† {', '.join(titles)}: {caveat}" for caveat, titles in findings.caveats().items()]
    lines += [f"- missing: {key}: {reason}" for key, reason in findings.missing.items()]
    return "\n".join(lines) + "\n"


def words(cell: Cell) -> str:
    """Format a cell: mean, standard deviation, interval and number of seeds, and Student's interval beside it.

    Examples:
        >>> from anomaly_lab.metrics.comparison import summary
        >>> values = {0: 0.96, 1: 0.97, 2: 0.98}
        >>> words(Cell(values, summary(list(values.values())), 0.93, 0.99, paper=None, same_patients=(0.945, 0.995)))
        '.970 ± .010 [.930, .990] ×3; these patients only [.945, .995]'
    """
    if not cell.values:
        return "–"
    spread = f" ± {rate(cell.summary.sd)}" if cell.summary.n > 1 else ""
    interval = "" if math.isnan(cell.low) else f" [{rate(cell.low)}, {rate(cell.high)}]"
    low, high = cell.same_patients
    same = "" if math.isnan(low) else f"; these patients only [{rate(low)}, {rate(high)}]"
    return f"{rate(cell.summary.mean)}{spread}{interval} ×{cell.summary.n}{same}"


def intervals(findings: Findings) -> str:
    """Say what the intervals of the main table are.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", folds=5, datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> "Nadeau and Bengio" in intervals(Findings(study, results={}))
        True
    """
    closed = findings.study.metric == "auroc"
    plain = INTERVALS.format(single=SINGLE[closed]) + ("" if closed else OTHERS)
    return f"{plain} {FOLDS}" if findings.folded else plain


def _of_classes(findings: Findings, dataset: str) -> list[str]:
    """Return the table of the classes' average precisions on a data set as lines of Markdown; empty without classes."""
    found = findings.classes(dataset)
    if found is None:
        return []
    head = [f"Average precision, {findings.study.datasets[dataset].title}", *found.names, "mean"]
    lines = [_row(head), _row(["---"] * len(head))]
    for line in found.lines:
        for title, values in ((line.title, line.values), (f"{line.title}, published", line.paper)):
            if values:
                known = [value for name in found.names if (value := values.get(name)) is not None]
                mean = math.fsum(known) / len(known) if known else None
                lines.append(_row([title, *(rate(values.get(name)) for name in found.names), rate(mean)]))
    return [*lines, ""]


def notes(findings: Findings, row: str) -> str:
    """Return the numbers of a row's footnotes, as in " [1, 3]"; empty without footnotes.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> rows = {"vae": Row("VAE", "vae_toy", notes=["b"])}
        >>> footnotes = {"a": "First.", "b": "Second."}
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows=rows, footnotes=footnotes)
        >>> notes(Findings(study, results={}), "vae")
        ' [2]'
    """
    order = list(findings.study.footnotes)
    numbers = [str(order.index(note) + 1) for note in (findings.study.rows[row].notes if row in findings.rows else [])]
    return f" [{', '.join(numbers)}]" if numbers else ""


def table_csv(findings: Findings) -> str:
    """Format the main table as CSV: one line per row and data set.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> rows = {"vae": Row("VAE", "vae_toy", paper={"set": 0.9})}
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows=rows)
        >>> print(table_csv(Findings(study, results={})), end="")
        row,title,dataset,n,mean,sd,low,high,same_patients_low,same_patients_high,published
        vae,VAE,set,0,,,,,,,0.9
    """
    head = ["row", "title", "dataset", "n", "mean", "sd", "low", "high"]
    head += ["same_patients_low", "same_patients_high", "published"]
    return to_csv([head, *(
        [line.name, line.title, dataset, cell.summary.n, *map(_number, (cell.summary.mean, cell.summary.sd,
         cell.low, cell.high, *cell.same_patients, cell.paper))]
        for line in findings.lines for dataset, cell in line.cells.items()
    )])  # fmt: skip


def runs_csv(findings: Findings) -> str:
    """Format the runs as CSV, one line per run: metrics, training time, code fingerprint and folder.

    Examples:
        >>> from anomaly_lab.studies.plan import DataSet, Row, Study
        >>> study = Study("toy", "Toy", datasets={"set": DataSet("Set")}, rows={"vae": Row("VAE", "vae_toy")})
        >>> runs_csv(Findings(study, results={})).split(",")[:4]
        ['row', 'dataset', 'seed', 'auroc']
    """
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
    identified = 3 + findings.folded  # columns that say which run it is
    own: list[str] = [metric for metric in (findings.study.metric,) if metric not in METRICS]
    head[3:3] = ["fold"] * findings.folded + own
    return to_csv([head, *(
        [*key[:identified], *(_number(result.figure(metric)) for metric in (*own, *METRICS)),
         int((result.label == 0).sum()),
         int(result.label.sum()), *map(_number, (result.seconds, result.facts.get("scoring_seconds"),
         result.memory)), result.facts.get("source", ""), result.facts.get("budget", ""), result.code, result.run]
        for key, result in findings.results.items()
    )])  # fmt: skip


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"
