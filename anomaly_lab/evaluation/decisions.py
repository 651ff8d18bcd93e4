"""What the decisions at the threshold would mean where the detector would be used: per day, at a stated prevalence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomaly_lab.evaluation.protocol import without_nan
from anomaly_lab.metrics.decisions import Estimate, predictive_value, total


def decisions_in_use(metrics: Mapping[str, Any], prevalence: float, scans_per_day: int) -> dict[str, Any] | None:
    """Compute predictive values and what happens on a day, for the detector and each baseline at its own threshold.

    Args:
        metrics: content of metrics.json, of which sensitivity, specificity and their intervals are asked.
        prevalence: share of anomalous scans, in (0, 1).
        scans_per_day: number of scans a day.

    Returns:
        metrics.json's `decisions`; None without a threshold or with one class only. A day's figures are means over
        many days: the intervals say how well sensitivity and specificity are known, not how days differ.

    Examples:
        >>> rate = {"value": 0.9, "low": 0.8, "high": 1.0}
        >>> used = decisions_in_use({"detector": {"recall": rate, "specificity": rate}}, 0.1, 100)
        >>> {name: round(figure["value"], 3) for name, figure in used["detector"].items()}
        {'ppv': 0.5, 'npv': 0.988, 'alarms': 18.0, 'found': 9.0, 'missed': 1.0, 'false_alarms': 9.0}
    """
    counts = (metrics.get("counts") or {}).get("test")
    if counts is not None and not (counts["normal"] and counts["anomalous"]):
        return None
    detector = _in_use(metrics["detector"], prevalence, scans_per_day)
    if detector is None:
        return None
    baselines = {
        name: used
        for name, figures in (metrics.get("baselines") or {}).items()
        if figures and (used := _in_use(figures, prevalence, scans_per_day))
    }
    return {"prevalence": prevalence, "scans_per_day": scans_per_day, "detector": detector, "baselines": baselines}


def _in_use(figures: Mapping[str, Any], prevalence: float, scans: int) -> dict[str, dict[str, float | None]] | None:
    sensitivity, specificity = (_estimate(figures.get(name)) for name in ("recall", "specificity"))
    if sensitivity is None or specificity is None:
        return None
    found = sensitivity.map(scans * prevalence)
    false_alarms = specificity.map(-scans * (1 - prevalence), scans * (1 - prevalence))
    rates: dict[str, Estimate] = {
        "ppv": predictive_value(sensitivity, specificity.map(-1, 1), prevalence),
        "npv": predictive_value(specificity, sensitivity.map(-1, 1), 1 - prevalence),
        "alarms": total(found, false_alarms),
        "found": found,
        "missed": sensitivity.map(-scans * prevalence, scans * prevalence),
        "false_alarms": false_alarms,
    }
    return {name: dict(without_nan(rate._asdict())) for name, rate in rates.items()}


def _estimate(figure: Mapping[str, float | None] | None) -> Estimate | None:
    """Return a metric with its interval; one without an interval has the widest there is."""
    if not figure or (value := figure.get("value")) is None:
        return None
    low, high = figure.get("low"), figure.get("high")
    return Estimate(value, 0.0 if low is None else low, 1.0 if high is None else high)
