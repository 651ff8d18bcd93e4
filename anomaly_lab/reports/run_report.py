"""The report of a run: a self-contained HTML file, made from the run folder alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from anomaly_lab.evaluation.baselines.fitted import kinds
from anomaly_lab.experiment.record import changes_of, hidden_share, remarks_of
from anomaly_lab.experiment.run_folder import write_atomic
from anomaly_lab.reports import charts, classes, confusion, decisions, html, images, likeness, shortcuts
from anomaly_lab.reports.charts import Row
from anomaly_lab.reports.gallery import FIXED_CASES
from anomaly_lab.reports.html import Banner, whole, without_folders
from anomaly_lab.reports.record import read_run
from anomaly_lab.reports.score_words import score_in_words

GALLERIES = {
    "tp": ("True positives", "anomalous and called anomalous, highest scores first"),
    "fn": ("False negatives", "anomalous and missed, lowest scores first"),
    "fp": ("False positives", "normal and called anomalous, highest scores first"),
    "tn": ("True negatives", "normal and called normal, lowest scores first"),
}
METRICS = {
    "balanced_accuracy": "Balanced accuracy",
    "recall": "Recall (sensitivity)",
    "specificity": "Specificity",
    "precision": "Precision",
    "accuracy": "Accuracy",
    "f1": "F1",
}
SECTIONS = {
    "threshold": "At the threshold",
    "classes": "Classes",
    "curves": "Scores and curves",
    "components": "Terms of the score",
    "cases": "Cases",
    "counterpart": "Healthy counterpart",
    "pixels": "Localisation",
    "training": "Training",
    "generator": "What the generator draws",
    "quality": "Quality of the images",
    "data": "Data",
    "shortcuts": "Shortcuts",
    "audit": "Leakage audit",
    "method": "How the numbers were computed",
    "record": "Run details",
}
ZERO_GRADIENT_RECORDS = 5  # consecutive log lines with a gradient of 0 before the report warns
RULES = {"all_anomalous": "Call all anomalous", "all_normal": "Call all normal"}


def write_report(run: Path, finished: str | None = None) -> Path:
    """Write report.html into a run folder, atomically, from the folder's content; missing parts are named in it.

    Args:
        run: the run folder, finished or not.
        finished: when the run was finished, ISO 8601, if its record is still to say so.

    Returns:
        Path of the report.

    Raises:
        UserError: `run` is not a run folder, or one of its files cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "config.yaml").write_text("seed: 0")
        ...     write_report(Path(folder)).name
        'report.html'
    """
    record = read_run(run)
    record = record._replace(provenance=without_folders(record.provenance), config=without_folders(record.config))
    if finished is not None:
        record = record._replace(provenance=record.provenance | {"finished": finished})
    threshold = (record.metrics.get("threshold") or {}).get("value")
    pixels = record.metrics.get("pixels") or {}
    of_classes = record.metrics.get("classes") or {}
    notice = shortcuts.banners(record.metrics.get("shortcuts"))
    page = (
        _environment()
        .get_template("run_report.html.j2")
        .render(
            record=record,
            metrics=record.metrics,
            provenance=record.provenance,
            banners=[
                *banners(record.provenance, record.metrics, named=True),
                *stalled(record.log),
                *notice,
                *classes.banners(of_classes),
            ],
            verdict=verdict(record.metrics),
            gains=gains(record.metrics),
            contenders=charts.contenders(record.metrics),
            pointers=charts.contenders({"detector": pixels, "baselines": pixels.get("baselines")}),
            comparison=charts.comparison(record.metrics) if record.metrics else [],
            curves=charts.curves(record.scores, record.metrics),
            histogram=charts.score_histogram(record.scores, threshold) if record.scores else None,
            training=charts.training(record.log),
            calls=calls(record.scores),
            score_words=score_in_words(record.config),
            rejudged=(record.provenance.get("evaluated") or [{}])[-1].get("scores") == "recorded",
            reference=decisions.reference(record.metrics.get("threshold") or {}),
            confused=confusion.confusion(record.scores, threshold),
            in_use=decisions.table(record.metrics),
            net_benefit=decisions.net_benefit_panel(record.metrics),
            class_panels=classes.panels(of_classes) if of_classes else [],
            class_galleries=classes.galleries(of_classes, record.gallery, record.classes),
            galleries=GALLERIES,
            counterparts=record.counterparts,
            shortcut_panels=shortcuts.panels(record.metrics.get("shortcuts") or {}),
            shortcut_habits=shortcuts.panels_of_detector(record.metrics.get("shortcuts") or {}),
            shortcut_notice=notice,
        )
    )
    write_atomic(run / "report.html", page)
    return run / "report.html"


def banners(provenance: dict[str, Any], metrics: dict[str, Any], named: bool = False) -> list[Banner]:
    """List the warnings and notes that stand at the top of the report.

    Args:
        provenance: content of provenance.json.
        metrics: content of metrics.json.
        named: whether to name the cases that they are about, which stays in the run folder.

    Examples:
        >>> [banner.title for banner in banners({"source": "twin", "budget": "laptop"}, metrics={})]
        ['Synthetic twin', 'Unfinished run', 'Reduced budget: laptop']
    """
    notices = []
    if provenance.get("source") == "twin":
        notices.append(
            Banner(
                "warning",
                "Synthetic twin",
                "These images are generated, not from patients: files in the layout of the real data, with planted "
                "lesions. The numbers show that the software works; they say nothing about clinical performance.",
            )
        )
    of_data = remarks_of(provenance.get("data") or {}, named)
    for caveat in [*(provenance.get("detector") or {}).get("caveats", []), *of_data]:
        notices.append(Banner("warning", "Read with care", caveat))
    notices += likeness.banners((provenance.get("data") or {}).get("audit") or {}, named)
    if not provenance.get("finished"):
        notices.append(Banner("warning", "Unfinished run", "This report shows what has been recorded so far."))
    if provenance.get("evaluating"):
        text = "Scores, threshold and metrics may be of two evaluations; evaluate the run again: make evaluate."
        notices.append(Banner("warning", "Interrupted evaluation", text))
    for change in provenance.get("accepted_changes", []):
        done = "resumed" if change["verb"] == "resume" else "evaluated"
        text = (
            f"When the run was {done} ({change['at']}), its data were not those it began with: "
            f"{changes_of(change, named)}. What is left of the recorded split was used."
        )
        notices.append(Banner("warning", "Changed data", text))
    if (choice := provenance.get("checkpoint") or {}).get("rule") == "asked for":
        last = choice["instead_of"].get("iteration")
        text = f"These are the results of the checkpoint of iteration {choice['iteration']}, not of the last, {last}."
        notices.append(Banner("warning", "Not the last checkpoint", text))
    facts = provenance.get("data") or {}
    if facts.get("contamination"):
        text = (
            f"{hidden_share(facts):.1%} of the training images are anomalous, as configured; they are not among those "
            "that are judged."
        )
        notices.append(Banner("warning", "Contaminated training", text))
    budget = provenance.get("budget")
    if budget and budget != "paper":
        notices.append(Banner("note", f"Reduced budget: {budget}", _budget(provenance)))
    said = {"Few patients": ("intervals", "remark"), "Threshold": ("threshold", "warning")}
    found = {title: (metrics.get(part) or {}).get(key) for title, (part, key) in said.items()}
    notices += [Banner("warning", title, str(text)) for title, text in found.items() if text]
    health = provenance.get("health") or {}
    if health.get("collapsed"):
        text = (
            f"The mean distance between generated images is {health['diversity']:.0%} of that between training images."
        )
        notices.append(Banner("warning", "Generator collapsed", text))
    return notices


def stalled(log: Sequence[Row]) -> list[Banner]:
    """Warn of each network whose gradient is exactly 0 at the end of a phase, as behind a saturated tanh.

    Args:
        log: lines of metrics.jsonl.

    Examples:
        >>> log = [{"iteration": i, "phase": "gan", "train/grad_generator": 0.0} for i in range(10, 60, 10)]
        >>> stalled(log)[0].text
        'The gradient of generator is 0 from iteration 10 on, so it has not learnt anything since.'
    """
    notices = []
    for phase in dict.fromkeys(str(line.get("phase", "training")) for line in log):
        lines = [line for line in log if str(line.get("phase", "training")) == phase]
        for key in sorted({key for line in lines for key in line if key.startswith("train/grad_")}):
            points = [(line.get("iteration"), line[key]) for line in lines if key in line]
            zero = [iteration for iteration, _ in takewhile(lambda point: point[1] == 0, reversed(points))]
            if len(zero) >= ZERO_GRADIENT_RECORDS:
                network = key.removeprefix("train/grad_")
                text = (
                    f"The gradient of {network} is 0 from iteration {zero[-1]} on, so it has not learnt anything since."
                )
                notices.append(Banner("warning", "A network stopped learning", text))
    return notices


def verdict(metrics: dict[str, Any]) -> Banner:
    """Summarise whether the detector beats the baselines: a headline, and the sentence of metrics.json.

    Args:
        metrics: content of metrics.json; empty if the run has not been evaluated.

    Examples:
        >>> difference = {"value": 0.1, "low": 0.02, "high": 0.2}
        >>> versus = {"beaten": True, "difference": difference, "sentence": "The detector beats …"}
        >>> verdict({"versus_baselines": versus}).title
        'Better than the baselines'
    """
    if not metrics:
        text = "There is no metrics.json in this run folder; `make evaluate RUN=…` writes it."
        return Banner("open", "Not evaluated yet", text)
    versus = metrics.get("versus_baselines") or {}
    difference = versus.get("difference") or {}
    text = str(versus.get("sentence") or "The baselines were not computed, so there is nothing to compare with.")
    if difference.get("value") is None:
        return Banner("open", "No verdict", text)
    if not versus.get("beaten"):
        return Banner("bad", "Not better than the baselines", text)
    if (difference.get("low") or 0) <= 0:
        return Banner("open", "Better than the baselines, but not clearly", text)
    return Banner("good", "Better than the baselines", text)


def gains(metrics: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the detector's AUROC minus that of each baseline, with its interval; of an older run, of the best one.

    Args:
        metrics: content of metrics.json.

    Examples:
        >>> gains({"versus_baselines": {"best": "pca_32", "difference": {"value": 0.1, "low": 0.0, "high": 0.2}}})
        {'pca_32': {'value': 0.1, 'low': 0.0, 'high': 0.2}}
    """
    versus = metrics.get("versus_baselines") or {}
    each = versus.get("each") or {versus.get("best"): versus.get("difference") or {}}
    return {name: gain for name, gain in each.items() if gain.get("value") is not None}


def calls(scores: list[Row]) -> dict[str, int]:
    """Count true and false positives and negatives of the test split; empty without a threshold.

    Args:
        scores: rows of scores.csv.

    Examples:
        >>> rows = [{"split": "test", "label": label, "pred_label": 1} for label in (0, 1, 1)]
        >>> calls(rows)
        {'tp': 2, 'fp': 1, 'tn': 0, 'fn': 0}
    """
    decided = [row for row in scores if row["split"] == "test" and row["pred_label"] is not None]
    names = {(1, 1): "tp", (0, 1): "fp", (0, 0): "tn", (1, 0): "fn"}
    outcomes = [names[row["label"], row["pred_label"]] for row in decided]
    return {outcome: outcomes.count(outcome) for outcome in names.values()} if decided else {}


def _environment() -> Environment:
    environment = html.environment(
        rate=charts.rate,
        figure=charts.figure,
        of_threshold=decisions.of_threshold,
        pretty=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    )
    environment.globals |= {
        "sections": SECTIONS,
        "fixed_cases": FIXED_CASES,
        "most_scores": confusion.MOST_SCORES,
        "metric_names": METRICS,
        "rule_names": RULES,
        "purposes": decisions.PURPOSES,
        "in_use_names": decisions.IN_USE,
        "baseline_names": charts.BASELINE_NAMES,
        "baseline_rules": {name: kind.rule for name, kind in kinds().items()},
        "class_figures": classes.FIGURES,
        "class_means": classes.OVER_CLASSES,
        "class_rules": classes.RULES,
        **likeness.GLOBALS,
        "heat_bar": images.data_uri(images.heat(np.tile(np.linspace(0, 1, 200), (8, 1)))),
    }
    return environment


def _budget(provenance: dict[str, Any]) -> str:
    def lengths(phases: dict[str, int]) -> str:
        return ", ".join(f"{name} {whole(length)}" for name, length in phases.items())

    text = "Training was shorter than in the publication; do not compare it with runs of another budget."
    done = (provenance.get("detector") or {}).get("phases")
    paper = (provenance.get("paper") or {}).get("phases")
    if done:
        text += f" Iterations here: {lengths(done)}."
    text += f" Budget “paper”: {lengths(paper)}." if paper else ""
    changes = {key.partition(".")[2]: value for key, value in (provenance.get("budget_overrides") or {}).items()}
    sizes = ", ".join(f"{key} {value}" for key, value in changes.items() if not key.endswith("_iterations"))
    return text + (f" Set by this budget: {sizes}." if sizes else "")
