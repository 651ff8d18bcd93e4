"""The part of the leakage audit about pictures that are alike, for the run report and the data sheet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomaly_lab.reports.charts import Panel, rate
from anomaly_lab.reports.html import whole
from anomaly_lab.reports.svg import Axis, Band, Series, line_chart

KINDS = {"val": "Validation normals", "test_normal": "Test normals", "test_anomalous": "Test anomalies"}


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what the audit found of neighbours in the listing, and of the distance to the most alike training picture.

    Args:
        found: `likeness` of the audit.

    Examples:
        >>> near = {"pairs": 99, "alike": 4, "p": 0.4, "together": False, "judged": 25, "leaking": 0}
        >>> sentences({"neighbours": near, "auroc": None})[0][:65]
        'Neighbouring files are not more alike than others: of 99 normals,'
    """
    texts, near, told = [], found.get("neighbours"), found.get("auroc")
    if near:
        begin = (
            "Neighbouring files look like pictures of one patient"
            if near["together"]
            else "Neighbouring files are not more alike than others"
        )
        texts.append(
            f"{begin}: of {whole(near['pairs'])} normals, {whole(near['alike'])} are more like the next patient’s than "
            f"95 % of the pairs far apart (by chance: {near['pairs'] / 20:.0f}; p = {near['p']:g})."
        )
        if near["together"] and near["judged"]:
            texts.append(
                f"{whole(near['leaking'])} of {whole(near['judged'])} judged normal patients have such a neighbour "
                "that trains."
            )
    else:
        texts.append("There are too few normal patients to tell whether neighbouring files are alike.")
    if told:
        interval = "" if told["low"] is None else f" ({rate(told['low'])} to {rate(told['high'])})"
        texts.append(
            "The distance to the most alike training picture alone tells the anomalies with AUROC "
            f"{rate(told['value'])}{interval}: a detector that scores no higher may have done no more than remember."
        )
    return texts


def curve(found: Mapping[str, Any]) -> Panel | None:
    """Plot likeness over the number of places between two files; None if it was not measured.

    Args:
        found: `likeness` of the audit.

    Examples:
        >>> points = [{"apart": lag, "low": 0.4, "median": 0.5, "high": 0.6} for lag in (1, 20, 60)]
        >>> curve({"neighbours": {"curve": points}}).title
        'Likeness of normals'
    """
    points = (found.get("neighbours") or {}).get("curve")
    if not points:
        return None
    x, low, median, high = ([float(point[name]) for point in points] for name in ("apart", "low", "median", "high"))
    axes = Axis("places apart in the listing", 0, max(x)), Axis("correlation", min(0.0, *low), 1)
    chart = line_chart([Series("", x, median, "series-0")], *axes, 200, [Band(x, low, high, "series-0")])
    note = "Line: median; band: quartiles. A line that falls from the left says that neighbours belong together."
    return Panel("Likeness of normals", chart, note)


GLOBALS = {"likeness_sentences": sentences, "likeness_curve": curve, "likeness_kinds": KINDS}  # of likeness.html.j2
