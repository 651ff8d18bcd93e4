"""The evaluation protocol: validation normals set the threshold, and test labels only measure the result.

`evaluate_scores` turns scores.csv into metrics.json and treats the baselines like the detector. Two further rules set
the threshold on the test split, to reproduce published figures; their results carry a warning (`CAVEATS`).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import ThresholdRule
from anomaly_lab.experiment.purpose import quantile_of
from anomaly_lab.metrics import ranking, statistics, thresholds
from anomaly_lab.metrics.ranking import Floats, Labels
from anomaly_lab.metrics.segmentation import Pointing
from anomaly_lab.metrics.thresholds import Threshold
from anomaly_lab.types import UserError

RULES = {
    "normal_quantile": "quantile of validation normals",
    "test_max_f1": "highest F1 on the test labels",
    "test_min_max": "a fifth of the range of the test scores",
}
CAVEATS = {
    "test_max_f1": "evaluation.threshold=test_max_f1: the threshold is where F1 on the test labels is highest; "
    "accuracy, F1 and the like are too optimistic, AUROC is not affected",
    "test_min_max": "evaluation.threshold=test_min_max: the threshold lies at a fifth of the range of the test scores; "
    "accuracy, F1 and the like depend on which other cases are evaluated, AUROC is not affected",
}
# Fixed threshold of the official GANomaly code, which scales the scores to [0, 1] over the test set.
RANGE_FRACTION = 0.2
CONFIDENCE = 0.95


def evaluate_scores(
    scores: Scores,
    purpose: str | float = "rule_in",
    replicates: int = 2000,
    seed: int = 0,
    rule: ThresholdRule = "normal_quantile",
) -> dict[str, Any]:
    """Compute the content of metrics.json, except its pixel metrics; undefined numbers are None.

    Args:
        scores: all validation and test cases.
        purpose: what the threshold is for, or the share of normals that should score at or below it, see
            `experiment.purpose`; decided before any result.
        replicates: number of bootstrap replicates; patients are drawn.
        seed: of the bootstrap.
        rule: how the threshold is set, for the detector and for each baseline.

    Returns:
        JSON-ready tables: counts, threshold, detector, baselines, trivial rules, versus_baselines, components, oracle,
        bootstrap.

    Raises:
        UserError: there are no test cases.

    Examples:
        >>> validation = [("val", 0, score / 20) for score in range(20)]  # 20 normals: scores 0 to .95
        >>> test = [("test", 0, 0.1), ("test", 0, 0.3), ("test", 1, 0.2), ("test", 1, 2.0)]
        >>> split, label, score = zip(*validation, *test)
        >>> names = [f"case{i:02}" for i in range(24)]
        >>> scores = Scores(names, names, list(split), np.array(label), np.array(score))
        >>> metrics = evaluate_scores(scores, replicates=10)
        >>> metrics["threshold"]["value"], metrics["detector"]["auroc"]["value"]
        (0.95, 0.75)
    """
    test = scores.of("test")
    if not test.any():
        raise UserError("scores: there is no case of the test split to evaluate; check data.split.file")
    label, patient = scores.label[test], np.array(scores.patient)[test].tolist()
    columns = {"detector": scores.score, **scores.baselines}
    cutoffs = {
        name: _threshold(rule, scores, values, quantile_of(purpose), scores.probabilities and name == "detector")
        for name, values in columns.items()
    }
    ratings = {name: (values[test], cutoffs[name].value) for name, values in columns.items()}
    replicated = statistics.bootstrap(label, patient, ratings, replicates, seed)
    tables = {name: _table(label, *ratings[name], replicated[name]) for name in columns}
    best_f1, best_threshold = thresholds.best_f1(label, scores.score[test])
    bootstrap = {"replicates": replicates, "unit": "patient", "strata": "label", "level": CONFIDENCE, "seed": seed}
    content: dict[str, Any] = without_nan(
        {
            "counts": {split: _counts(scores, split) for split in ("val", "test")},
            "threshold": {
                "rule": RULES[rule],
                "uses_test": rule in CAVEATS,
                "purpose": purpose if isinstance(purpose, str) and rule not in CAVEATS else None,
                **_fields(cutoffs["detector"]),
                "num_cross_fitted": int((scores.of("crossfit") & scores.normals).sum()) if rule not in CAVEATS else 0,
            },
            "detector": tables.pop("detector"),
            "baselines": tables,
            "trivial": {
                "all_anomalous": thresholds.confusion_metrics(label, np.ones_like(label, bool)),
                "all_normal": thresholds.confusion_metrics(label, np.zeros_like(label, bool)),
            },
            "versus_baselines": _versus_baselines(label, ratings, replicated),
            "oracle": {"best_f1": {"value": best_f1, "threshold": best_threshold}},
            "bootstrap": bootstrap,
            **_components(scores, patient, replicates, seed),
        }
    )
    return content


def _components(scores: Scores, patient: list[str], replicates: int, seed: int) -> dict[str, Any]:
    """Measure each term of the detector's score on the test split alone.

    Returns:
        `components`: `auroc` of each with its interval, and `correlation`, Spearman's rank correlation of each with
        each; empty if the detector names no terms.
    """
    test = scores.of("test")
    terms = {name: values[test] for name, values in scores.components.items()}
    if not terms:
        return {}
    ratings = {name: (values, math.nan) for name, values in terms.items()}
    replicated = statistics.bootstrap(scores.label[test], patient, ratings, replicates, seed)
    auroc = {name: ranking.auroc(scores.label[test], values) for name, values in terms.items()}
    measured = {
        "auroc": {name: _estimate(value, replicated[name]["auroc"]) for name, value in auroc.items()},
        "correlation": {
            name: {other: _rank_correlation(terms[name], terms[other]) for other in terms} for name in terms
        },
    }
    return {"components": measured}


def _rank_correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's correlation; NaN if one of them does not vary."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(one), rankdata(other))[0, 1])


def evaluate_maps(measured: Mapping[str, Pointing]) -> dict[str, Any]:
    """Compute the pixel metrics of metrics.json for detector and baselines; undefined numbers are None.

    Args:
        measured: "detector" and each baseline by name, measured on the same pixels.

    Examples:
        >>> detector = Pointing({"auroc": 0.9}, {"auroc": np.array([0.8, 0.9, 1.0])}, 3)  # three patients
        >>> baseline = Pointing({"auroc": 0.7}, {"auroc": np.array([0.7, 0.7, 0.7])}, 3)
        >>> metrics = evaluate_maps({"detector": detector, "pca_32": baseline})
        >>> metrics["auroc"]["value"], metrics["versus_baselines"]["best"], metrics["versus_baselines"]["beaten"]
        (0.9, 'pca_32', True)
    """
    tables = {
        name: {metric: _jackknife(value, pointing.without[metric]) for metric, value in pointing.figures.items()}
        for name, pointing in measured.items()
    }
    detector = measured["detector"]
    content: dict[str, Any] = {
        "num_masks": detector.num_masks,
        "patients": len(detector.without["auroc"]),
        "level": CONFIDENCE,
        **tables.pop("detector"),
    }
    if not tables:  # no normals trained, so that there are no baselines
        return dict(without_nan(content))
    best = max(measured.keys() - {"detector"}, key=lambda name: (measured[name].figures["auroc"], name))
    baseline = measured[best]
    gain = detector.figures["auroc"] - baseline.figures["auroc"]
    difference = _jackknife(gain, detector.without["auroc"] - baseline.without["auroc"], least=-1.0)
    content |= {
        "baselines": tables,
        "versus_baselines": {"best": best, "difference": difference, "beaten": gain > 0},
    }
    return dict(without_nan(content))


def _jackknife(value: float, without: Floats, least: float = 0.0) -> dict[str, float]:
    """Return a figure with its jackknife interval, clipped to [least, 1]; `without` leaves out a patient at a time."""
    low, high = np.clip(statistics.jackknife(value, without, CONFIDENCE), least, 1.0).tolist()
    return {"value": value, "low": low, "high": high}


def _threshold(rule: ThresholdRule, scores: Scores, values: Floats, quantile: float, probabilities: bool) -> Threshold:
    """Set the threshold on `values` [N], scores of the detector or a baseline; two rules use only the test split."""
    test = scores.of("test")
    if rule == "test_max_f1":
        return Threshold(thresholds.best_f1(scores.label[test], values[test])[1], math.nan, 0)
    if rule == "test_min_max":
        low, high = float(values[test].min()), float(values[test].max())
        return Threshold(low + RANGE_FRACTION * (high - low), math.nan, 0)
    patient = np.array(scores.patient)[scores.normals].tolist()
    return thresholds.from_normals(values[scores.normals], quantile, patient, probabilities)


def _fields(threshold: Threshold) -> dict[str, Any]:
    low, high = threshold.specificity or (math.nan, math.nan)
    return threshold._asdict() | {"specificity": {"low": low, "high": high}}


def _table(label: Labels, score: Floats, threshold: float, replicated: Mapping[str, Floats]) -> dict[str, Any]:
    """Return every metric with its value and bootstrap interval."""
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
    """Compare the detector with the better baseline on the same bootstrap replicates; None without baselines."""
    auroc = {name: ranking.auroc(label, score) for name, (score, _) in ratings.items()}
    detector = auroc.pop("detector")
    if not auroc:
        return None
    best = max(auroc, key=lambda name: auroc[name])
    paired = replicated["detector"]["auroc"] - replicated[best]["auroc"]
    difference = _estimate(detector - auroc[best], paired)
    beaten = difference["value"] > 0
    sentence = _sentence(best, detector, auroc[best], difference)
    return {"best": best, "difference": difference, "beaten": beaten, "sentence": sentence}


def _sentence(best: str, detector: float, baseline: float, difference: Mapping[str, float]) -> str:
    """Return the comparison as a sentence, from both AUROCs and their difference."""
    value, low, high = difference["value"], difference["low"], difference["high"]
    if math.isnan(value):
        return "The detector cannot be compared with a baseline: all test cases have the same label."
    name = {"mean_image": "mean-image", "pca_32": "PCA-32"}.get(best, best)
    verdict = "beats" if value > 0 else "does not beat"
    doubt = "excludes 0" if low > 0 or high < 0 else "includes 0, so these cases do not settle the comparison"
    return (
        f"The detector {verdict} the {name} baseline: AUROC {_short(detector)} against {_short(baseline)} "
        f"(difference {_short(value, '+')}, 95 % interval {_short(low, '+')} to {_short(high, '+')}). "
        f"The interval {doubt}."
    )


def _short(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f").replace("0.", ".", 1)


def _counts(scores: Scores, split: str) -> dict[str, int]:
    label = scores.label[scores.of(split)]
    return {"normal": int((label == 0).sum()), "anomalous": int((label == 1).sum())}


def without_nan(value: Any) -> Any:
    """Replace NaN by None in nested mappings: JSON has no NaN.

    Examples:
        >>> without_nan({"auroc": {"value": math.nan}})
        {'auroc': {'value': None}}
    """
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
