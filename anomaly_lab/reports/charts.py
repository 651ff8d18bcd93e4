"""Charts of the run report: comparison with the baselines, ROC and PR curves, score histogram, training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from anomaly_lab.evaluation.baselines.fitted import titles
from anomaly_lab.reports.svg import (
    Axis,
    Group,
    Interval,
    Series,
    interval_plot,
    line_chart,
    padded,
    stacked_histogram,
    tick_label,
)

BASELINE_NAMES = titles()
TERMS = {
    "train/critic": "Critic loss",
    "train/wasserstein": "Wasserstein estimate",
    "train/penalty": "Gradient penalty",
    "train/generator": "Generator loss",
    "train/encoder": "Encoder loss",
    "train/image_residual": "Image residual",
    "train/feature_residual": "Feature residual",
    "val/anomaly_score": "Mean score of validation normals",
    "train/sign_real": "Sign of the discriminator on real images",
    "train/augment_p": "Augmentation probability p (ADA)",
    "cheat/test_auroc": "AUROC on the test labels",
    "health/real_above_fake": "Discriminator: real above generated (.5: balanced)",
    "health/train_above_held_out": "Discriminator: training above validation (1: memorised)",
    "health/overfitting": "Discriminator overfitting r_v",
    "health/diversity": "Diversity of generated images",
}
POINTS = 300  # per line; a chart 340 pixels wide cannot show more

Row = dict[str, Any]


class Panel(NamedTuple):
    """A chart as SVG text, with its heading and a caption that explains how to read it."""

    title: str
    svg: str
    note: str = ""


def term(key: str) -> str:
    """Return the display name of a logged term: from TERMS, otherwise derived from the key.

    Examples:
        >>> term("train/critic"), term("train/log_likelihood"), term("train/grad_encoder")
        ('Critic loss', 'Log likelihood', 'Gradient norm, encoder')
    """
    if key in TERMS:
        return TERMS[key]
    name = key.rpartition("/")[2].replace("_", " ")
    if name.startswith("grad "):
        return f"Gradient norm, {name.removeprefix('grad ')}"
    return name[:1].upper() + name[1:]


def rate(value: object, digits: int = 3) -> str:
    """Format a number without its leading zero; an undefined one becomes a dash.

    Examples:
        >>> rate(0.8123), rate(1.0), rate(-0.067), rate(None)
        ('.812', '1.000', '−.067', '–')
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    return ("−" if value < 0 else "") + (text[1:] if text.startswith("0.") else text)


def share(value: object, digits: int = 2) -> str:
    """Format a share as `rate` does, with more digits where one below 1 would look like 1.

    Examples:
        >>> share(0.95), share(0.995), share(0.9999), share(1.0)
        ('.95', '.995', '.9999', '1.00')
    """
    beyond = 1 - value if isinstance(value, int | float) else 1.0
    near = 1e-9 < beyond < 0.99 * 10**-digits
    return rate(value, -math.floor(math.log10(beyond) + 1e-9) if near else digits)


def figure(entry: dict[str, float | None] | float | None) -> str:
    """Format a metric with its interval; a bare number, as older runs have it, without one.

    Examples:
        >>> figure({"value": 0.8123, "low": 0.74, "high": 0.881})
        '.812 [.74, .88]'
        >>> figure(0.8123), figure(None)
        ('.812', '–')
    """
    if isinstance(entry, float):
        return rate(entry)
    if not entry or entry.get("value") is None:
        return "–"
    text, low, high = share(entry["value"], 3), entry.get("low"), entry.get("high")
    return text if low is None or high is None else f"{text} [{share(low)}, {rate(high, 2)}]"


def contenders(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """List the detector and the baselines of metrics.json, the detector first.

    Returns:
        Display name, CSS class and metrics of each.

    Examples:
        >>> contenders({"detector": {"auroc": 0.9}, "baselines": {"pca_32": {"auroc": 0.8}}})
        [('This detector', 'series-0', {'auroc': 0.9}), ('PCA-32 reconstruction', 'series-1', {'auroc': 0.8})]
    """
    baselines = [
        (BASELINE_NAMES.get(key, key), f"series-{1 + i % 2}", entry or {})
        for i, (key, entry) in enumerate((metrics.get("baselines") or {}).items())
    ]
    return [("This detector", "series-0", metrics.get("detector") or {}), *baselines]


def comparison(metrics: dict[str, Any]) -> list[Panel]:
    """Plot the three metrics that need no threshold for detector and baselines, with the value of random guessing.

    Args:
        metrics: content of metrics.json.

    Examples:
        >>> metrics = {"detector": {"auroc": {"value": 0.9, "low": 0.8, "high": 1.0}}, "baselines": {}}
        >>> [panel.title for panel in comparison(metrics)]
        ['AUROC', 'Average precision', 'Sensitivity at 95 % specificity']
    """
    test = (metrics.get("counts") or {}).get("test") or {}
    total = (test.get("normal") or 0) + (test.get("anomalous") or 0)
    chance = {"auroc": 0.5, "sensitivity_at_95_specificity": 0.05}
    if total:
        chance["average_precision"] = (test.get("anomalous") or 0) / total
    titles = {
        "auroc": ("AUROC", "Probability that an anomalous image scores higher than a normal one."),
        "average_precision": ("Average precision", "Precision averaged over all levels of recall."),
        "sensitivity_at_95_specificity": (
            "Sensitivity at 95 % specificity",
            "Fraction of anomalous images detected if 1 in 20 normal images may raise a false alarm.",
        ),
    }
    panels = []
    for key, (title, note) in titles.items():
        rows = []
        for name, style, figures in contenders(metrics):
            entry = figures.get(key) or {}
            value, low, high = (entry.get(k) for k in ("value", "low", "high"))
            rows.append(Interval(name, value, low, high, figure(entry), style))
        reference = (f"guessing {rate(chance[key])}", chance[key]) if key in chance else None
        panels.append(Panel(title, interval_plot(rows, reference), note))
    return panels


def curves(rows: Sequence[Row], metrics: dict[str, Any]) -> list[Panel]:
    """Plot ROC and precision-recall curves of the test split; empty if a class is missing there.

    Args:
        rows: of scores.csv.
        metrics: content of metrics.json; the operating point is marked if it has one.

    Examples:
        >>> rows = [{"split": "test", "label": label, "score": score} for label, score in ((0, 0.1), (1, 0.9))]
        >>> [panel.title for panel in curves(rows, {})]
        ['ROC', 'Precision and recall']
        >>> curves(rows[:1], {})
        []
    """
    test = [row for row in rows if row["split"] == "test"]
    label = np.array([row["label"] for row in test], dtype=int)
    if len(set(label.tolist())) < 2:
        return []
    unit = Axis("false alarms among normals (1 − specificity)", 0, 1)
    recall_axis = Axis("recall (fraction of anomalous images detected)", 0, 1)
    roc, pr = [], []
    columns = [("score", *contenders(metrics)[0])]
    columns += [(c, *e) for c, e in zip(metrics.get("baselines") or {}, contenders(metrics)[1:], strict=True)]
    for column, name, style, _ in columns:
        score = np.array([row.get(column, math.nan) for row in test], dtype=float)
        if np.isfinite(score).all():
            false_positive_rate, true_positive_rate, _ = roc_curve(label, score)
            precision, recall, _ = precision_recall_curve(label, score)
            roc.append(Series(name, *_thin(false_positive_rate, true_positive_rate), style))
            # drawn as steps: straight lines between the points would show too high a precision
            pr.append(Series(name, *_thin(np.repeat(recall[::-1], 2)[:-1], np.repeat(precision[::-1], 2)[1:]), style))
    prevalence = float(label.mean())
    roc.insert(0, Series("Guessing", [0, 1], [0, 1], "reference"))
    pr.insert(0, Series(f"Calling all anomalous ({rate(prevalence)})", [0, 1], [prevalence] * 2, "reference"))
    recall_at, specificity_at, precision_at = (
        ((metrics.get("detector") or {}).get(key) or {}).get("value", math.nan)
        for key in ("recall", "specificity", "precision")
    )
    if None not in (recall_at, specificity_at, precision_at):
        roc.append(Series("At the threshold", [1 - specificity_at], [recall_at], "series-0"))
        pr.append(Series("At the threshold", [recall_at], [precision_at], "series-0"))
    return [
        Panel(
            "ROC",
            line_chart(roc, unit, Axis("recall", 0, 1), 280),
            "The closer to the top left corner, the better.",
        ),
        Panel(
            "Precision and recall",
            line_chart(pr, recall_axis, Axis("precision", 0, 1), 280),
            "Precision: fraction of alarms that are correct. It depends on how common anomalies are in the test split.",
        ),
    ]


def score_histogram(rows: Sequence[Row], threshold: float | None) -> Panel:
    """Plot the scores of validation normals, test normals and test anomalies, one row each, with the threshold.

    Args:
        rows: of scores.csv.
        threshold: position of the vertical line; None draws none.

    Examples:
        >>> rows = [{"split": "val", "label": 0, "score": 0.1}, {"split": "test", "label": 1, "score": 0.9}]
        >>> panel = score_histogram(rows, threshold=0.5)
        >>> "Validation normals (1)" in panel.svg, "threshold 0.5" in panel.svg
        (True, True)
    """
    parts = {
        ("val", 0): ("Validation normals", "held-out"),
        ("test", 0): ("Test, normal", "normal"),
        ("test", 1): ("Test, anomalous", "anomalous"),
    }
    groups = [
        Group(
            name,
            [r["score"] for r in rows if (r["split"], r["label"]) == key and math.isfinite(r["score"])],
            style,
        )
        for key, (name, style) in parts.items()
    ]
    line = None if threshold is None else (f"threshold {threshold:.4g}", threshold)
    note = "Each row is scaled to its own highest bar."
    note += "" if threshold is None else " Images to the right of the threshold are called anomalous."
    return Panel("Scores", stacked_histogram(groups, "anomaly score", line), note)


def training(log: Sequence[Row]) -> dict[str, list[Panel]]:
    """Plot each logged term in a small chart, grouped by phase; gradient norms come last.

    Args:
        log: lines of metrics.jsonl.

    Examples:
        >>> log = [{"iteration": i, "images": 8 * i, "phase": "gan", "train/critic": -i} for i in (10, 20)]
        >>> {phase: [(panel.title, panel.note) for panel in panels] for phase, panels in training(log).items()}
        {'gan': [('Critic loss', 'last −20')]}
    """
    phases: dict[str, list[Panel]] = {}
    for phase in dict.fromkeys(str(line.get("phase", "training")) for line in log):
        lines = [line for line in log if str(line.get("phase", "training")) == phase]
        keys = sorted({key for line in lines for key in line if "/" in key}, key=_order)
        panels = [_term(key, lines) for key in keys]
        phases[phase] = [panel for panel in panels if panel]
    return phases


def _term(key: str, lines: Sequence[Row]) -> Panel | None:
    axis = "images" if all("images" in line for line in lines) else "iteration"
    points = [(line[axis], line[key]) for line in lines if isinstance(line.get(key), int | float) and axis in line]
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if not finite:
        return None
    x, y = _thin(*(np.array(column, dtype=float) for column in zip(*finite, strict=True)))
    num_left_out = len(points) - len(finite)
    name = term(key)
    x_axis = Axis("images seen" if axis == "images" else "iterations", min(x), max(max(x), min(x) + 1))
    svg = line_chart([Series(name, x, y, "series-0")], x_axis, Axis("", *padded(y)), 150)
    note = f"last {tick_label(y[-1])}" + (f"; {num_left_out} not finite, left out" if num_left_out else "")
    return Panel(name, svg, note)


def _order(key: str) -> tuple[bool, int, str]:
    return "grad_" in key, list(TERMS).index(key) if key in TERMS else len(TERMS), key


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int)) if len(x) > POINTS else slice(None)
    return x[kept].tolist(), y[kept].tolist()
