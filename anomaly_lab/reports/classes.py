"""What the report of a run with labels shows of its classes: charts, and the pictures of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from anomaly_lab.evaluation.classes import ClassTable
from anomaly_lab.reports.charts import Panel, Row, figure, rate
from anomaly_lab.reports.html import Banner, whole
from anomaly_lab.reports.svg import Axis, Interval, Series, interval_plot, line_chart, matrix

FIGURES: tuple[dict[str, str], ...] = (  # a table each: without and with a threshold
    {
        "average_precision": "Average precision",
        "interpolated_average_precision": "Interpolated",
        "auroc": "AUROC",
    },
    {"precision": "Precision", "recall": "Recall", "f1": "F1"},
)
OVER_CLASSES = {  # the mean of each of FIGURES
    "average_precision": "mean_average_precision",
    "interpolated_average_precision": "mean_interpolated_average_precision",
    "auroc": "mean_auroc",
    "precision": "macro_precision",
    "recall": "macro_recall",
    "f1": "macro_f1",
}
RULES = {"run": "at the run’s threshold", "validation": "at the highest F1 of the validation cases"}
SHOWN = {  # outcomes of a class in samples/gallery.npz, as `<outcome>:<number of the class>`
    "found": "has it and is called it, most probable first",
    "missed": "has it and is not called it, least probable first",
    "mistaken": "has it not and is called it, most probable first",
}


class Shown(NamedTuple):
    """The pictures of an outcome of a class: what the outcome is, and its cases."""

    name: str
    words: str
    cases: list[Row]


def panels(classes: Mapping[str, Any]) -> list[Panel]:
    """Plot average precision of each class, the confusion matrix, and the reliability before and after the temperature.

    Args:
        classes: metrics.json's `classes`.

    Examples:
        >>> each = {"gun": {"average_precision": {"value": 0.8, "low": 0.7, "high": 0.9}, "prevalence": 0.1}}
        >>> [panel.title for panel in panels({"names": ["gun"], "each": each})]
        ['Average precision']
    """
    charts = [_precision(classes)]
    names, counts = classes.get("names") or [], classes.get("confusion") or []
    if counts and {len(names)} == {len(counts), *map(len, counts)}:
        note = "Rows: what the cases are. The darker a cell, the larger its share of the row."
        charts.append(Panel("Confusion matrix", matrix(names, counts), note))
    if found := classes.get("calibration"):
        charts.append(_reliability(found, classes.get("task") == "multiclass"))
    return charts


def banners(classes: Mapping[str, Any]) -> list[Banner]:
    """Warn of the classes that cannot be measured.

    Examples:
        >>> [banner.text for banner in banners({"remarks": ["Scissors: no test case has it."]})]
        ['Scissors: no test case has it.']
    """
    return [Banner("warning", "Classes", " ".join(remarks))] if (remarks := classes.get("remarks")) else []


def galleries(
    classes: Mapping[str, Any], gallery: Mapping[str, Sequence[Row]], table: ClassTable | None
) -> dict[str, list[Shown]]:
    """Return the pictures of each class by outcome, each with the classes that the case has and their probabilities.

    Args:
        classes: metrics.json's `classes`.
        gallery: cases with their pictures by kind.
        table: content of classes.csv; None without one.

    Examples:
        >>> [(shown.name, len(shown.cases)) for shown in galleries({"names": ["gun"]}, {"found:0": [{}]}, None)["gun"]]
        [('found', 1), ('missed', 0), ('mistaken', 0)]
    """
    rows = {id: row for row, id in enumerate(table.id)} if table else {}

    def said(case: Row, k: int) -> Row:
        if table is None or case.get("id") not in rows or k >= len(table.classes):
            return case
        row = rows[case["id"]]
        has = [name for name, target in zip(table.classes, table.target[row], strict=True) if target == 1]
        return case | {
            "classes": "+".join(has) or "none of the classes",
            "probability": float(table.probability[row, k]),
        }

    return {
        name: [
            Shown(outcome, words, [said(case, k) for case in gallery.get(f"{outcome}:{k}", ())])
            for outcome, words in SHOWN.items()
        ]
        for k, name in enumerate(classes.get("names") or ())
    }


def _precision(classes: Mapping[str, Any]) -> Panel:
    mean = classes.get("mean_average_precision") or {}
    rows = [Interval("Mean over classes", *_ends(mean), figure(mean), "series-0")]
    for name, figures in (classes.get("each") or {}).items():
        entry = figures.get("average_precision") or {}
        text = f"{figure(entry)}, guessing {rate(figures.get('prevalence'))}"
        rows.append(Interval(name if len(name) < 16 else f"{name[:14]}…", *_ends(entry), text, "series-1"))
    note = "Mean precision over the test cases that have the class. Guessing has their share of the test cases."
    return Panel("Average precision", interval_plot(rows), note)


def _ends(entry: Mapping[str, float | None]) -> tuple[float | None, float | None, float | None]:
    return entry.get("value"), entry.get("low"), entry.get("high")


def _reliability(found: Mapping[str, Any], exclusive: bool) -> Panel:
    series = [Series("As claimed", [0, 1], [0, 1], "reference")]
    for state, name, style in (("after", "With the temperature", "series-0"), ("before", "As predicted", "series-1")):
        curve = (found.get(state) or {}).get("curve") or []
        points = [(place["confidence"], place["share"]) for place in curve]
        if len(points) > 1:
            series.append(Series(name, [x for x, _ in points], [y for _, y in points], style))
    claims = sum(place["claims"] for place in (found.get("before") or {}).get("curve") or [])
    what = "the most probable class of a case" if exclusive else "each class of a case"
    note = f"{whole(claims)} claims, {what}. Below the diagonal: more confident than right."
    return Panel(
        "Reliability", line_chart(series, Axis("confidence", 0, 1), Axis("share that is right", 0, 1), 260), note
    )
