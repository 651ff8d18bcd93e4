"""The report of a run: one self-contained HTML file, made from the run folder alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.reports import charts, html, images
from anomaly_lab.reports.charts import Row
from anomaly_lab.reports.html import Banner, whole
from anomaly_lab.reports.record import read_run

GALLERIES = {
    "tp": ("True positives", "anomalous and called anomalous, highest scores first"),
    "fn": ("False negatives", "anomalous and missed, lowest scores first"),
    "fp": ("False positives", "normal and called anomalous, highest scores first"),
    "tn": ("True negatives", "normal and called normal, lowest scores first"),
}
METRICS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "f1": "F1",
}
SECTIONS = {
    "threshold": "At the threshold",
    "curves": "Scores and curves",
    "cases": "Cases",
    "pixels": "Where the anomaly is",
    "training": "Training",
    "data": "Data",
    "audit": "Leakage audit",
    "method": "How the numbers were made",
    "record": "Record",
}
ZERO_GRADIENT_RECORDS = 5  # records in a row without a gradient: no accident
RULES = {"all_anomalous": "Call all anomalous", "all_normal": "Call all normal"}


def write_report(run: Path) -> Path:
    """Writes report.html into a run folder, atomically, from what the folder holds; names what is missing.

    Raises:
        UserError: not a run folder, or one of its files cannot be read.
    """
    record = read_run(run)
    threshold = (record.metrics.get("threshold") or {}).get("value")
    pixels = record.metrics.get("pixels") or {}
    page = (
        _environment()
        .get_template("run_report.html.j2")
        .render(
            record=record,
            metrics=record.metrics,
            provenance=record.provenance,
            banners=[*banners(record.provenance, record.metrics), *stalled(record.log)],
            verdict=verdict(record.metrics),
            contenders=charts.contenders(record.metrics),
            pointers=charts.contenders({"detector": pixels, "baselines": pixels.get("baselines")}),
            comparison=charts.comparison(record.metrics) if record.metrics else [],
            curves=charts.curves(record.scores, record.metrics),
            histogram=charts.score_histogram(record.scores, threshold) if record.scores else None,
            training=charts.training(record.log),
            calls=calls(record.scores),
            galleries=GALLERIES,
        )
    )
    write_atomic(run / "report.html", page)
    return run / "report.html"


def banners(provenance: dict[str, Any], metrics: dict[str, Any]) -> list[Banner]:
    """The warnings that stand above every number."""
    found = []
    if provenance.get("source") == "twin":
        found.append(
            Banner(
                "warning",
                "Synthetic twin",
                "These are generated pictures, not patients: files of the real layout with planted lesions. "
                "The numbers show that the machinery works and say nothing about medicine.",
            )
        )
    for caveat in (provenance.get("detector") or {}).get("caveats", []):
        found.append(Banner("warning", "Read with care", caveat))
    if not provenance.get("finished"):
        found.append(Banner("warning", "Unfinished run", "What follows is the state of the record so far."))
    data = provenance.get("data") or {}
    found += [Banner("warning", "Read with care", remark) for remark in data.get("remarks") or []]
    hidden = data.get("contamination")
    if hidden:
        text = f"{hidden:.0%} of the training images are anomalous on purpose and were taken out of the test split."
        found.append(Banner("warning", "Contaminated training", text))
    budget = provenance.get("budget")
    if budget and budget != "paper":
        found.append(Banner("note", f"Reduced budget: {budget}", _budget(provenance)))
    warning = (metrics.get("threshold") or {}).get("warning")
    if warning:
        found.append(Banner("warning", "Threshold", str(warning)))
    health = provenance.get("health") or {}
    if health.get("collapsed"):
        text = f"The generator’s samples differ {health['diversity']:.0%} as much among themselves as training images."
        found.append(Banner("warning", "Generator collapsed", text))
    return found


def stalled(log: Sequence[Row]) -> list[Banner]:
    """A warning for each network whose gradient is exactly 0 at the end of a phase, as under a saturated tanh."""
    found = []
    for phase in dict.fromkeys(str(line.get("phase", "training")) for line in log):
        lines = [line for line in log if str(line.get("phase", "training")) == phase]
        for key in sorted({key for line in lines for key in line if key.startswith("train/grad_")}):
            points = [(line.get("iteration"), line[key]) for line in lines if key in line]
            still = [iteration for iteration, _ in takewhile(lambda point: point[1] == 0, reversed(points))]
            if len(still) >= ZERO_GRADIENT_RECORDS:
                network = key.removeprefix("train/grad_")
                text = f"The gradient of {network} is 0 from iteration {still[-1]} on: it learnt nothing after that."
                found.append(Banner("warning", "A network stood still", text))
    return found


def verdict(metrics: dict[str, Any]) -> Banner:
    """Whether the detector was worth its training: the judgement's sentence under a title that weighs it."""
    if not metrics:
        text = "There is no metrics.json in this run folder; make evaluate RUN=… writes it."
        return Banner("open", "Not judged yet", text)
    versus = metrics.get("versus_baselines") or {}
    difference = versus.get("difference") or {}
    text = str(versus.get("sentence") or "The baselines were not computed, so there is nothing to compare with.")
    if difference.get("value") is None:
        return Banner("open", "No verdict", text)
    if not versus.get("beaten"):
        return Banner("bad", "Not above the floor", text)
    if (difference.get("low") or 0) <= 0:
        return Banner("open", "Above the floor, but not clearly", text)
    return Banner("good", "Above the floor", text)


def calls(scores: list[Row]) -> dict[str, int]:
    """Cases of the test split by what was said of them: tp, fp, tn, fn; empty without a threshold."""
    judged = [row for row in scores if row["split"] == "test" and row["pred_label"] is not None]
    names = {(1, 1): "tp", (0, 1): "fp", (0, 0): "tn", (1, 0): "fn"}
    kinds = [names[row["label"], row["pred_label"]] for row in judged]
    return {kind: kinds.count(kind) for kind in names.values()} if judged else {}


def _environment() -> Environment:
    environment = html.environment(
        rate=charts.rate,
        figure=charts.figure,
        pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    )
    environment.globals |= {
        "sections": SECTIONS,
        "metric_names": METRICS,
        "rule_names": RULES,
        "baseline_names": charts.FLOORS,
        "heat_bar": images.data_uri(images.heat(np.tile(np.linspace(0, 1, 200), (8, 1)))),
    }
    return environment


def _budget(provenance: dict[str, Any]) -> str:
    def lengths(phases: dict[str, int]) -> str:
        return ", ".join(f"{name} {whole(length)}" for name, length in phases.items())

    text = "Shorter than the publication’s training; not to be compared with runs of another budget."
    done = (provenance.get("detector") or {}).get("phases")
    paper = (provenance.get("paper") or {}).get("phases")
    if done:
        text += f" Iterations here: {lengths(done)}."
    text += f" Budget “paper”: {lengths(paper)}." if paper else ""
    changes = {key.partition(".")[2]: value for key, value in (provenance.get("budget_overrides") or {}).items()}
    sizes = ", ".join(f"{key} {value}" for key, value in changes.items() if not key.endswith("_iterations"))
    return text + (f" Set by this budget: {sizes}." if sizes else "")
