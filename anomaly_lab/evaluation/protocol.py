"""Which labels decide what: validation normals set the threshold, test labels only measure the result.

`evaluate_scores` turns scores.csv into metrics.json; baselines are evaluated by the same rules as the detector. Two
more rules set the threshold on the test split, to reproduce published figures; whatever they touch says so (`CAVEATS`).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import ThresholdRule
from anomaly_lab.metrics import ranking, statistics, thresholds
from anomaly_lab.metrics.ranking import Floats, Labels
from anomaly_lab.metrics.segmentation import Pointing
from anomaly_lab.metrics.thresholds import Threshold
from anomaly_lab.types import UserError

RULES = {
    "normal_quantile": "quantile of held-out normals",
    "test_max_f1": "highest F1 on the test labels",
    "test_min_max": "a fifth of the range of the test scores",
}
CAVEATS = {
    "test_max_f1": "evaluation.threshold=test_max_f1: decisions are made where F1 on the test labels is highest; "
    "accuracy, F1 and the like are too good, AUROC is not touched",
    "test_min_max": "evaluation.threshold=test_min_max: decisions are made at a fifth of the range of the test scores; "
    "accuracy, F1 and the like depend on which other cases are judged, AUROC is not touched",
}
RANGE_FRACTION = (
    0.2  # the fixed threshold of the official GANomaly code, on scores that it scales to [0, 1] over the test set
)
CONFIDENCE = 0.95


def evaluate_scores(
    scores: Scores,
    quantile: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    rule: ThresholdRule = "normal_quantile",
) -> dict[str, Any]:
    """The content of metrics.json, but for its pixels; numbers that do not exist are None.

    Args:
        scores: every val and test case.
        quantile: share of normals meant to stay at or below the threshold.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        rule: how the threshold is drawn, the detector's and each floor's.

    Raises:
        UserError: there are no test cases.
    """
    test = scores.of("test")
    if not test.any():
        raise UserError(
            "scores: no case of the test split, so there is nothing to evaluate_scores; see data.split.file"
        )
    label, patient = scores.label[test], np.array(scores.patient)[test].tolist()
    columns = {"detector": scores.score, **scores.baselines}
    cuts = {name: _cut(rule, scores, values, quantile) for name, values in columns.items()}
    ratings = {name: (values[test], cuts[name].value) for name, values in columns.items()}
    replicated = statistics.bootstrap(label, patient, ratings, replicates, seed)
    tables = {name: _table(label, *ratings[name], replicated[name]) for name in columns}
    f1, at = thresholds.best_f1(label, scores.score[test])
    strata = {"replicates": replicates, "unit": "patient", "strata": "label", "level": CONFIDENCE, "seed": seed}
    content: dict[str, Any] = _without_nan(
        {
            "counts": {split: _counts(scores, split) for split in ("val", "test")},
            "threshold": {"rule": RULES[rule], "uses_test": rule in CAVEATS, **cuts["detector"]._asdict()},
            "detector": tables.pop("detector"),
            "baselines": tables,
            "trivial": {
                "all_anomalous": thresholds.confusion_metrics(label, np.ones_like(label, bool)),
                "all_normal": thresholds.confusion_metrics(label, np.zeros_like(label, bool)),
            },
            "versus_baselines": _versus_baselines(label, ratings, replicated),
            "oracle": {"best_f1": {"value": f1, "threshold": at}},
            "bootstrap": strata,
        }
    )
    return content


def evaluate_maps(measured: Mapping[str, Pointing]) -> dict[str, Any]:
    """What metrics.json says of the maps of the detector and of each floor; numbers that do not exist are None.

    Args:
        measured: "detector" and the baselines, on the same pixels.
    """
    tables = {
        name: {metric: _left_out(value, found.without[metric]) for metric, value in found.figures.items()}
        for name, found in measured.items()
    }
    ours = measured["detector"]
    best = max(measured.keys() - {"detector"}, key=lambda name: (measured[name].figures["auroc"], name))
    floor = measured[best]
    gain = ours.figures["auroc"] - floor.figures["auroc"]
    difference = _left_out(gain, ours.without["auroc"] - floor.without["auroc"], least=-1.0)
    content: dict[str, Any] = {
        "num_masks": ours.num_masks,
        "patients": len(ours.without["auroc"]),
        "level": CONFIDENCE,
        **tables.pop("detector"),
        "baselines": tables,
        "versus_baselines": {"best": best, "difference": difference, "beaten": gain > 0},
    }
    return dict(_without_nan(content))


def _left_out(value: float, without: Floats, least: float = 0.0) -> dict[str, float]:
    """A figure with its jackknife interval, cut to [least, 1]."""
    low, high = np.clip(statistics.jackknife(value, without, CONFIDENCE), least, 1.0).tolist()
    return {"value": value, "low": low, "high": high}


def _cut(rule: ThresholdRule, scores: Scores, values: Floats, quantile: float) -> Threshold:
    """The threshold on `values` [N], the detector's or a floor's; by two of the rules no normal was held out for it."""
    test = scores.of("test")
    if rule == "test_max_f1":
        return Threshold(thresholds.best_f1(scores.label[test], values[test])[1], math.nan, 0)
    if rule == "test_min_max":
        low, high = float(values[test].min()), float(values[test].max())
        return Threshold(low + RANGE_FRACTION * (high - low), math.nan, 0)
    return thresholds.normal_quantile(values[scores.normals], quantile)


def _table(label: Labels, score: Floats, threshold: float, replicated: Mapping[str, Floats]) -> dict[str, Any]:
    """Every metric with its value and interval."""
    values = {
        "auroc": ranking.auroc(label, score),
        "average_precision": ranking.average_precision(label, score),
        "sensitivity_at_95_specificity": ranking.sensitivity_at_specificity(label, score, 0.95),
    }
    if not math.isnan(threshold):
        values |= thresholds.confusion_metrics(label, score > threshold)
    return {name: _estimate(values.get(name, math.nan), replicated[name]) for name in replicated}


def _estimate(value: float, replicated: Floats) -> dict[str, float]:
    low, high = statistics.interval(replicated, CONFIDENCE)
    return {"value": value, "low": low, "high": high}


def _versus_baselines(
    label: Labels, ratings: Mapping[str, tuple[Floats, float]], replicated: Mapping[str, Mapping[str, Floats]]
) -> dict[str, Any] | None:
    """The detector against the better floor, on the same replicates."""
    auroc = {name: ranking.auroc(label, score) for name, (score, _) in ratings.items()}
    ours = auroc.pop("detector")
    if not auroc:
        return None
    best = max(auroc, key=lambda name: auroc[name])
    paired = replicated["detector"]["auroc"] - replicated[best]["auroc"]
    difference = _estimate(ours - auroc[best], paired)
    beaten = difference["value"] > 0
    sentence = _sentence(best, ours, auroc[best], difference)
    return {"best": best, "difference": difference, "beaten": beaten, "sentence": sentence}


def _sentence(best: str, ours: float, floor: float, difference: Mapping[str, float]) -> str:
    value, low, high = difference["value"], difference["low"], difference["high"]
    if math.isnan(value):
        return "The detector cannot be compared with a floor: the test split holds one class only."
    name = {"mean_image": "mean-image", "pca_32": "PCA-32"}.get(best, best)
    verdict = "beats" if value > 0 else "does not beat"
    doubt = "excludes 0" if low > 0 or high < 0 else "includes 0, so these cases do not settle it"
    return (
        f"The detector {verdict} the {name} floor: AUROC {_short(ours)} against {_short(floor)} "
        f"(difference {_short(value, '+')}, 95 % interval {_short(low, '+')} to {_short(high, '+')}). "
        f"The interval {doubt}."
    )


def _short(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f").replace("0.", ".", 1)


def _counts(scores: Scores, split: str) -> dict[str, int]:
    label = scores.label[scores.of(split)]
    return {"normal": int((label == 0).sum()), "anomalous": int((label == 1).sum())}


def _without_nan(value: Any) -> Any:
    """The same with None for nan, all the way down: JSON has no nan."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
