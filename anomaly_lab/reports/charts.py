"""Which chart answers which question: comparison with the baselines, ROC and PR, score histogram, training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

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

FLOORS = {"mean_image": "Mean-image distance", "pca_32": "PCA-32 reconstruction"}
TERMS = {
    "train/critic": "Critic loss",
    "train/wasserstein": "Wasserstein estimate",
    "train/penalty": "Gradient penalty",
    "train/generator": "Generator loss",
    "train/encoder": "Encoder loss",
    "train/image_residual": "Image residual",
    "train/feature_residual": "Feature residual",
    "val/anomaly_score": "Score of held-out normals",
    "train/sign_real": "Sign of the discriminator on reals",
    "train/augment_p": "ADA’s p",
    "cheat/test_auroc": "AUROC on the test labels",
    "health/real_above_fake": "Real above fake (balance)",
    "health/train_above_held_out": "Training above held-out (by heart: 1)",
    "health/overfitting": "Overfitting r_v",
    "health/diversity": "Diversity of samples",
}
POINTS = 300  # of a line: more than a 340-pixel chart can show

Row = dict[str, Any]


class Panel(NamedTuple):
    """A chart with its heading and a caption that says how to read it."""

    title: str
    svg: str
    note: str = ""


def term(key: str) -> str:
    """What a recorded term is called: by TERMS, else by its own name, "train/log_likelihood" as Log likelihood."""
    if key in TERMS:
        return TERMS[key]
    name = key.rpartition("/")[2].replace("_", " ")
    if name.startswith("grad "):
        return f"Gradient norm, {name.removeprefix('grad ')}"
    return name[:1].upper() + name[1:]


def rate(value: object, digits: int = 3) -> str:
    """A figure as .812, 1.000, −.067; a dash where it is not defined."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    return ("−" if value < 0 else "") + (text[1:] if text.startswith("0.") else text)


def figure(entry: dict[str, float | None] | float | None) -> str:
    """A figure with its interval: .812 [.74, .88]; a bare one, of a record that has no interval, by itself."""
    if isinstance(entry, float):
        return rate(entry)
    if not entry or entry.get("value") is None:
        return "–"
    text, low, high = rate(entry["value"]), entry.get("low"), entry.get("high")
    return text if low is None or high is None else f"{text} [{rate(low, 2)}, {rate(high, 2)}]"


def contenders(metrics: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, CSS class and figures of the detector and of the baselines, the detector first."""
    baselines = [
        (FLOORS.get(key, key), f"series-{1 + i % 2}", entry or {})
        for i, (key, entry) in enumerate((metrics.get("baselines") or {}).items())
    ]
    return [("This detector", "series-0", metrics.get("detector") or {}), *baselines]


def comparison(metrics: dict[str, Any]) -> list[Panel]:
    """The three figures that need no threshold: detector, baselines, and what guessing would reach."""
    test = (metrics.get("counts") or {}).get("test") or {}
    total = (test.get("normal") or 0) + (test.get("anomalous") or 0)
    chance = {"auroc": 0.5, "sensitivity_at_95_specificity": 0.05}
    if total:
        chance["average_precision"] = (test.get("anomalous") or 0) / total
    titles = {
        "auroc": ("AUROC", "Chance that an anomalous image scores higher than a normal one."),
        "average_precision": ("Average precision", "Mean share of true alarms over all recall levels."),
        "sensitivity_at_95_specificity": (
            "Sensitivity at 95 % specificity",
            "Share of anomalous images found when 1 in 20 normals may raise an alarm.",
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
    """ROC and precision-recall of the test split; none when one of the classes is missing there."""
    test = [row for row in rows if row["split"] == "test"]
    label = np.array([row["label"] for row in test], dtype=int)
    if len(set(label.tolist())) < 2:
        return []
    unit = Axis("false alarms among normals (1 − specificity)", 0, 1)
    recall_axis = Axis("recall (share of anomalous found)", 0, 1)
    roc, pr = [], []
    columns = [("score", *contenders(metrics)[0])]
    columns += [(c, *e) for c, e in zip(metrics.get("baselines") or {}, contenders(metrics)[1:], strict=True)]
    for column, name, style, _ in columns:
        score = np.array([row.get(column, math.nan) for row in test], dtype=float)
        if np.isfinite(score).all():
            false_alarms, found, _ = roc_curve(label, score)
            precision, recall, _ = precision_recall_curve(label, score)
            roc.append(Series(name, *_thin(false_alarms, found), style))
            # precision holds for the whole step up to its recall: straight lines between points would flatter
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
            "The nearer to the top left corner, the better.",
        ),
        Panel(
            "Precision and recall",
            line_chart(pr, recall_axis, Axis("precision", 0, 1), 280),
            "Precision: of all alarms, the share that is right. It depends on how common anomalies are here.",
        ),
    ]


def score_histogram(rows: Sequence[Row], threshold: float | None) -> Panel:
    """Scores of held-out normals, test normals and test anomalous, one row each, and the threshold."""
    parts = {
        ("val", 0): ("Held-out normals", "held-out"),
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
    note += "" if threshold is None else " Right of the threshold an image is called anomalous."
    return Panel("Scores", stacked_histogram(groups, "anomaly score", line), note)


def training(log: Sequence[Row]) -> dict[str, list[Panel]]:
    """One small chart a logged term, by phase; gradient norms after the losses."""
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
    lost = len(points) - len(finite)
    words = term(key)
    x_axis = Axis("images seen" if axis == "images" else "iterations", min(x), max(max(x), min(x) + 1))
    svg = line_chart([Series(words, x, y, "series-0")], x_axis, Axis("", *padded(y)), 150)
    return Panel(words, svg, f"last {tick_label(y[-1])}" + (f"; {lost} not finite, left out" if lost else ""))


def _order(key: str) -> tuple[bool, int, str]:
    return "grad_" in key, list(TERMS).index(key) if key in TERMS else len(TERMS), key


def _thin(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int)) if len(x) > POINTS else slice(None)
    return x[kept].tolist(), y[kept].tolist()
