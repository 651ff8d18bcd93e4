"""The leakage audit on pages: what stands above, and the part about pictures that are alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomaly_lab.reports.charts import Panel, rate
from anomaly_lab.reports.html import Banner, whole
from anomaly_lab.reports.svg import Axis, Band, Series, line_chart

KINDS = {"val": "Validation normals", "test_normal": "Test normals", "test_anomalous": "Test anomalies"}


def banners(audit: Mapping[str, Any], named: bool = False) -> list[Banner]:
    """Warn of patients and pictures in several splits, and of pictures that are labelled both ways.

    Args:
        audit: what `splitting.audit.audit` found; older records lack some of it.

    Examples:
        >>> banners({"shared_patients": ["p1"], "crossing": 0})[0].text
        '1 patient is in more than one split, so the test split is not independent.'
    """
    notices = []
    if shared := len(audit.get("shared_patients") or []):
        patients = "patient is" if shared == 1 else "patients are"
        text = f"{whole(shared)} {patients} in more than one split, so the test split is not independent."
        notices.append(Banner("warning", "Patients in several splits", text))
    if crossing := audit.get("crossing"):
        text = f"{whole(crossing)} pair{'s' * (crossing > 1)} of identical or nearly identical images in two splits."
        notices.append(Banner("warning", "Images in several splits", text))
    if both := audit.get("contradicting"):
        like = f", such as {' and '.join(both[0]['ids'])}" if named else ""
        pairs = "pair of identical images is" if len(both) == 1 else "pairs of identical images are"
        text = f"{whole(len(both))} {pairs} labelled normal and anomalous{like}."
        notices.append(Banner("warning", "Contradicting labels", text))
    return notices


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
