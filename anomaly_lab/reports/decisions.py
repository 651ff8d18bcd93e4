"""What the report says of a threshold: what it is for, how well it is known, and what it means where it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from anomaly_lab.metrics.decisions import net_benefit
from anomaly_lab.reports.charts import Panel, contenders, rate, share
from anomaly_lab.reports.html import whole
from anomaly_lab.reports.svg import Axis, Series, line_chart, padded

PURPOSES = {  # the names of `experiment.purpose` in words
    "rule_in": "an alarm is acted upon, so false alarms are to be few",
    "screening": "few anomalies are to be missed, and every alarm gets a second look",
    "rule_out": "what raises no alarm is not looked at, so hardly an anomaly may be missed",
}
METHODS = {
    "order_statistic": "one of their scores by rank",
    "log_normal": "a log-normal bound, because they are few",
    "logit_normal": "a normal bound of their log-odds, because they are few",
}
IN_USE = {
    "alarms": "Alarms a day",
    "found": "Anomalies found a day",
    "missed": "Anomalies missed a day",
    "ppv": "An alarm is right (PPV)",
    "npv": "Silence is right (NPV)",
}
POINTS = 60
MAX_PROBABILITY = 0.95


def of_threshold(threshold: Mapping[str, Any]) -> str:
    r"""Say of a threshold what it is for, what it was set on, and in which range its true specificity lies.

    Args:
        threshold: metrics.json's `threshold`, of any version.

    Examples:
        >>> few = {"purpose": "rule_in", "quantile": 0.95, "num_normals": 8, "num_patients": 8, "method": "log_normal"}
        >>> print(of_threshold(few | {"specificity": {"low": 0.77, "high": 0.999}}).replace("; ", ";\n"))
        rule_in (.95 of new normals below it), from 8 validation normals by a log-normal bound, because they are few;
        its true specificity is between .77 and 1.00 (95 %)
        >>> of_threshold({"rule": "highest F1 on the test labels", "uses_test": True})
        'highest F1 on the test labels'
    """
    if threshold.get("uses_test") or not threshold.get("num_normals"):
        return str(threshold.get("rule") or "an unknown rule")
    purpose = threshold.get("purpose")
    below = f"{share(threshold.get('quantile'))} of new normals below it"
    normals, patients = threshold["num_normals"], threshold.get("num_patients")
    of_patients = f" of {whole(patients)} patients" if patients and patients != normals else ""
    text = f"{purpose} ({below})" if purpose else below
    fitted = threshold.get("num_cross_fitted") or 0
    kind = (
        f"normals{of_patients}, {whole(fitted)} of them cross-fitted" if fitted else f"validation normals{of_patients}"
    )
    text += f", from {whole(normals)} {kind}"
    if method := METHODS.get(str(threshold.get("method"))):
        text += f" by {method}"
    ends = threshold.get("specificity") or {}
    if isinstance(ends.get("low"), int | float) and isinstance(ends.get("high"), int | float):
        text += f"; its true specificity is between {share(ends['low'])} and {rate(ends['high'], 2)} (95 %)"
    return text


def reference(threshold: Mapping[str, Any]) -> str:
    """Return the name of the normals that set a threshold and p-values.

    Args:
        threshold: metrics.json's `threshold`, of any version.

    Examples:
        >>> reference({"num_normals": 8}), reference({"num_normals": 83, "num_cross_fitted": 75})
        ('validation normals', 'validation and cross-fitted normals')
    """
    return "validation and cross-fitted normals" if threshold.get("num_cross_fitted") else "validation normals"


def in_words(decisions: Mapping[str, Any]) -> str:
    """Say what a day would be like; empty without a threshold.

    Args:
        decisions: metrics.json's `decisions`.

    Examples:
        >>> used = {"alarms": {"value": 13.5}, "missed": {"value": 0.6}, "ppv": {"value": 0.3}, "npv": {"value": 0.99}}
        >>> in_words({"prevalence": 0.05, "scans_per_day": 100, "detector": used})
        'at prevalence .05 and 100 scans a day: 13.5 alarms and 0.60 missed anomalies a day; PPV .30, NPV .99'
    """
    used = decisions.get("detector")
    if not used:
        return ""
    alarms, missed, ppv, npv = ((used.get(name) or {}).get("value") for name in ("alarms", "missed", "ppv", "npv"))
    prevalence, scans = _percentage(decisions.get("prevalence")), whole(decisions.get("scans_per_day"))
    day = f"{amount(alarms)} alarms and {amount(missed)} missed anomalies a day"
    return f"at prevalence {prevalence} and {scans} scans a day: {day}; PPV {rate(ppv, 2)}, NPV {rate(npv, 2)}"


def amount(number: object) -> str:
    """Format a number of cases a day.

    Examples:
        >>> amount(0.0312), amount(13.52), amount(1204.4), amount(None)
        ('0.03', '13.5', '1204', '–')
    """
    if not isinstance(number, int | float):
        return "–"
    return f"{number:.{0 if abs(number) >= 100 else 1 if abs(number) >= 1 else 2}f}"


def table(metrics: Mapping[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    """Return the rows of the table of a day: name, CSS class, and the text of each of IN_USE.

    Examples:
        >>> used = {"alarms": {"value": 13.5, "low": 9.2, "high": 18.8}}
        >>> table({"decisions": {"detector": used, "baselines": {}}})[0][2]["alarms"]
        '13.5 [9.2, 18.8]'
    """
    decisions = metrics.get("decisions") or {}
    baselines = _best(metrics, decisions.get("baselines") or {})
    shown = contenders({"detector": decisions.get("detector"), "baselines": baselines}) if decisions else []
    return [(name, style, {key: _cell(key, used.get(key)) for key in IN_USE}) for name, style, used in shown if used]


def net_benefit_panel(metrics: Mapping[str, Any]) -> Panel | None:
    """Plot net benefit per 1000 scans over what a false alarm costs; None without a threshold or decisions.

    Args:
        metrics: content of metrics.json.

    Examples:
        >>> rates = {"recall": {"value": 0.9}, "specificity": {"value": 0.8}}
        >>> found = net_benefit_panel({"detector": rates, "decisions": {"prevalence": 0.05, "detector": {}}})
        >>> found.svg.count("<polyline")  # look at all, at none, at what the detector marks
        3
    """
    prevalence = (metrics.get("decisions") or {}).get("prevalence")
    compared = {**metrics, "baselines": _best(metrics, metrics.get("baselines") or {})}
    rated = [
        (name, style, sensitivity, specificity)
        for name, style, figures in contenders(compared)
        for sensitivity, specificity in [((figures.get(key) or {}).get("value") for key in ("recall", "specificity"))]
        if sensitivity is not None and specificity is not None
    ]
    if prevalence is None or not rated or rated[0][1] != "series-0":
        return None
    last = min(MAX_PROBABILITY, 1.3 * max(_worth_it(found, spared, prevalence) for _, _, found, spared in rated))
    at = np.linspace(0, last, POINTS).tolist()

    def benefit(sensitivity: float, specificity: float) -> list[float]:
        return [1000 * net_benefit(sensitivity, specificity, prevalence, p) for p in at]

    lines = [Series(name, at, benefit(found, spared), style) for name, style, found, spared in rated]
    _, most = padded([0.0, 1000 * prevalence])
    least = -0.15 * most  # what costs more than that is no policy, and would flatten the rest
    idle = [
        Series("Look at every scan", at, benefit(1, 0), "reference"),
        Series("", [0.0, last], [0.0, 0.0], "reference"),
    ]
    lines = [line._replace(y=[y if y >= least else math.nan for y in line.y]) for line in [*idle, *lines]]
    axis = Axis("probability from which on you would look", 0, last)
    note = (
        "Anomalies found per 1000 scans, less the false alarms at their price, at a prevalence of "
        f"{_percentage(prevalence)}. At .1 on the axis, one finding is worth nine false alarms. The highest line is "
        "the best policy; the line at 0 is to look at nothing."
    )
    return Panel("Net benefit", line_chart(lines, axis, Axis("per 1000 scans", least, most), 260), note)


def _best(metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> dict[str, Any]:
    """Return the baseline that the verdict is against, and no other: where it is named, else the first two."""
    best = str((metrics.get("versus_baselines") or {}).get("best"))
    return {best: baselines[best]} if best in baselines else dict(list(baselines.items())[:2])


def _worth_it(sensitivity: float, specificity: float, prevalence: float) -> float:
    """Return the probability up to which a decision, its PPV, or looking at all, the prevalence, has a net benefit."""
    found, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    return max(prevalence, found / (found + false) if found else 0.0)


def _cell(key: str, figure: Mapping[str, float | None] | None) -> str:
    show = amount if key in ("alarms", "found", "missed") else share
    value, low, high = ((figure or {}).get(name) for name in ("value", "low", "high"))
    if value is None:
        return "–"
    return show(value) if low is None or high is None else f"{show(value)} [{show(low)}, {show(high)}]"


def _percentage(share: object) -> str:
    return f"{share:g}".replace("0.", ".", 1) if isinstance(share, int | float) else "–"
