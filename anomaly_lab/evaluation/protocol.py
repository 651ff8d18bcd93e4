"""The evaluation protocol: validation normals set the threshold, and test labels only measure the result.

`evaluate_scores` turns scores.csv into metrics.json and treats the baselines like the detector. Two further rules set
the threshold on the test split, to reproduce published figures; their results carry a warning (`CAVEATS`).

Intervals are for new patients. Those of AUROCs and of their differences are closed (`metrics.joint`), others are from
the bootstrap, and with few patients of a class there is none. The best baseline is chosen by these very cases, so that
its AUROC is flattered: the detector is compared with each of them, and the interval of the difference from the best
allows for the choice (`_simultaneous`).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from scipy import stats
from scipy.stats import rankdata

from anomaly_lab.evaluation.baselines.fitted import kinds
from anomaly_lab.evaluation.scores import Scores
from anomaly_lab.experiment.config import ThresholdRule
from anomaly_lab.experiment.purpose import quantile_of
from anomaly_lab.metrics import joint, ranking, statistics, thresholds
from anomaly_lab.metrics.comparison import holm
from anomaly_lab.metrics.joint import Patients, Sample
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
OF_ONE_CLASS = {"specificity": 0, "recall": 1, "sensitivity_at_95_specificity": 1}  # metric -> its class's label
Ends = tuple[float, float, float]  # low end, high end, p-value of a difference


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
        bootstrap, intervals.

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
    label, (_, patient) = scores.label[test], np.unique(np.array(scores.patient)[test], return_inverse=True)
    patients = joint.count_patients(label, patient)
    columns = {"detector": scores.score, **scores.baselines}
    cutoffs = {
        name: _threshold(rule, scores, values, quantile_of(purpose), scores.probabilities and name == "detector")
        for name, values in columns.items()
    }
    ratings = {name: (values[test], cutoffs[name].value) for name, values in columns.items()}
    replicated = statistics.bootstrap(label, patient, ratings, replicates, seed)
    tables = {name: _table(Sample(label, score, patient), cut, replicated[name], patients)
              for name, (score, cut) in ratings.items()}  # fmt: skip
    best_f1, best_threshold = thresholds.best_f1(label, scores.score[test])
    bootstrap = {"replicates": replicates, "unit": "patient", "strata": "label", "level": CONFIDENCE, "seed": seed}
    judged = dict(zip(("normal", "anomalous"), patients, strict=True))
    content: dict[str, Any] = without_nan(
        {
            "counts": {split: _counts(scores, split) for split in ("val", "test")},
            "threshold": threshold_of(scores, purpose, rule),
            "detector": tables.pop("detector"),
            "baselines": tables,
            "trivial": {
                "all_anomalous": thresholds.confusion_metrics(label, np.ones_like(label, bool)),
                "all_normal": thresholds.confusion_metrics(label, np.zeros_like(label, bool)),
            },
            "versus_baselines": _versus_baselines(
                label, patient, {name: score for name, (score, _) in ratings.items()}
            ),
            "oracle": {"best_f1": {"value": best_f1, "threshold": best_threshold}},
            "bootstrap": bootstrap,
            "intervals": {"patients": judged, "remark": joint.too_few(*patients)},
            **_components(scores, patient),
        }
    )
    return content


def threshold_of(
    scores: Scores, purpose: str | float = "rule_in", rule: ThresholdRule = "normal_quantile"
) -> dict[str, Any]:
    """Compute `threshold` of metrics.json, of the detector; undefined numbers are None.

    Args:
        scores, purpose, rule: as for `evaluate_scores`.

    Examples:
        >>> names = [f"case{i:02}" for i in range(20)]
        >>> scores = Scores(names, names, ["val"] * 20, np.zeros(20, int), np.arange(20.0))
        >>> threshold_of(scores)["value"], threshold_of(scores, "rule_out")["value"]
        (19.0, 10.0)
    """
    found = _threshold(rule, scores, scores.score, quantile_of(purpose), scores.probabilities)
    low, high = found.specificity or (math.nan, math.nan)
    content: dict[str, Any] = without_nan(
        {
            "rule": RULES[rule],
            "uses_test": rule in CAVEATS,
            "purpose": purpose if isinstance(purpose, str) and rule not in CAVEATS else None,
            **found._asdict(),
            "specificity": {"low": low, "high": high},
            "probabilities": scores.probabilities,
            "num_cross_fitted": int((scores.of("crossfit") & scores.normals).sum()) if rule not in CAVEATS else 0,
        }
    )
    return content


def _components(scores: Scores, patient: Patients) -> dict[str, Any]:
    """Measure each term of the detector's score on the test split alone.

    Returns:
        `components`: `auroc` of each with its interval, and `correlation`, Spearman's rank correlation of each with
        each; empty if the detector names no terms.
    """
    test = scores.of("test")
    terms = {name: values[test] for name, values in scores.components.items()}
    if not terms:
        return {}
    label = scores.label[test]
    measured = {
        "auroc": {name: _auroc(Sample(label, values, patient)) for name, values in terms.items()},
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
        >>> auroc = {"auroc": np.array([0.88, 0.9, 0.9, 0.91, 0.91])}  # without each of five patients
        >>> detector, baseline = Pointing({"auroc": 0.9}, auroc, 5, 5), Pointing({"auroc": 0.7}, auroc, 5, 5)
        >>> metrics = evaluate_maps({"detector": detector, "pca_32": baseline})
        >>> metrics["auroc"]["value"], metrics["versus_baselines"]["best"], metrics["versus_baselines"]["beaten"]
        (0.9, 'pca_32', True)
    """
    detector = measured["detector"]
    tables = {
        name: {
            metric: dict(zip(("value", "low", "high"), (value, *_jackknife(value, pointing.without[metric],
                                                                           detector.lesioned)), strict=False))
            for metric, value in pointing.figures.items()
        }
        for name, pointing in measured.items()
    }  # fmt: skip
    few = f"No intervals: {detector.lesioned} patients with a lesion were judged, and an interval needs {joint.FEWEST}."
    content: dict[str, Any] = {
        "num_masks": detector.num_masks,
        "patients": len(detector.without["auroc"]),
        "remark": few if detector.lesioned < joint.FEWEST else None,
        "level": CONFIDENCE,
        **tables.pop("detector"),
    }
    if not tables:  # no normals trained, so that there are no baselines
        return dict(without_nan(content))
    gains = {name: detector.figures["auroc"] - measured[name].figures["auroc"] for name in tables}
    ends = {
        name: partial(
            _jackknife, gain, detector.without["auroc"] - measured[name].without["auroc"], detector.lesioned, -1.0
        )
        for name, gain in gains.items()
    }
    best, compared = _simultaneous(gains, ends)
    content |= {"baselines": tables, "versus_baselines": {"best": best, **compared}}
    return dict(without_nan(content))


def _jackknife(value: float, without: Floats, patients: int, least: float = 0.0, level: float = CONFIDENCE) -> Ends:
    """Return the jackknife interval of a figure, and its p-value against 0; `without` leaves out a patient at a time.

    `patients` is the number of those with a lesion.
    """
    low, high = statistics.jackknife(value, without, level, patients, least)
    error = statistics.jackknife_error(without)
    if math.isnan(low):
        return low, high, math.nan
    if error < 1e-12:
        return low, high, joint.p_without_spread(value, patients)
    return low, high, 2 * float(stats.t.sf(abs(value) / error, patients - 1))


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


def _table(
    sample: Sample, threshold: float, replicated: Mapping[str, Floats], patients: tuple[int, int]
) -> dict[str, Any]:
    """Return every metric with its value and interval."""
    label, score = sample.label, sample.score
    values = {
        "average_precision": ranking.average_precision(label, score),
        "sensitivity_at_95_specificity": ranking.sensitivity_at_specificity(label, score, 0.95),
    }
    if not math.isnan(threshold):
        values |= thresholds.confusion_metrics(label, score > threshold)
    table: dict[str, Any] = {"auroc": _auroc(sample)}
    for name in replicated.keys() - table.keys():
        k = patients[OF_ONE_CLASS[name]] if name in OF_ONE_CLASS else min(patients)
        if name == "precision":  # which is of those that are called, and may be of few
            assert sample.patient is not None, "cases have patients"
            k = max(1, len(np.unique(sample.patient[score > threshold])))
        low, high = interval_of(values.get(name, math.nan), replicated[name], min(patients), k)
        table[name] = {"value": values.get(name, math.nan), "low": low, "high": high}
    return {name: table[name] for name in replicated}


def interval_of(value: float, replicated: Floats, fewest: int, alike: int) -> tuple[float, float]:
    """Return the interval of a share: Student's, with the bootstrap's standard error, on the logit scale as an AUROC's.

    Of 25 patients it holds the true share in .94 to .99 of samples, whatever that is; the percentiles of the replicates
    do in .86 to .98, and end at 1 although there were errors.

    Args:
        value: the share.
        replicated: its replicates, [R]; those in which it is nan do not count.
        fewest: number of patients of the class with the fewest; with less than `joint.FEWEST` there is no interval.
        alike: number of patients that it rests on: those that came out alike, if nearly all replicates are the same.

    Examples:
        >>> [round(end, 3) for end in interval_of(1.0, np.ones(100), fewest=25, alike=25)]  # not [1, 1]
        [0.863, 1.0]
        >>> interval_of(0.5, np.linspace(0.4, 0.6, 101), fewest=4, alike=4)
        (nan, nan)
        >>> drawn = np.random.default_rng(0).binomial(25, 20 / 25, 20_000) / 25
        >>> [round(end, 2) for end in interval_of(20 / 25, drawn, fewest=25, alike=25)]
        [0.58, 0.92]
    """
    known = replicated[np.isfinite(replicated)]
    if fewest < joint.FEWEST or not len(known) or math.isnan(value):
        return math.nan, math.nan
    if np.ptp(np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])) < 1e-12:
        return joint.without_spread(value, alike, level=CONFIDENCE)
    freedom = max(1, alike - 1)
    error = float(known.std()) * math.sqrt(1 + 1 / freedom)  # the bootstrap's is too small by √((n - 1) / n)
    return joint.ends(value, float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error)


def _auroc(sample: Sample) -> dict[str, float]:
    found = joint.auroc([sample], CONFIDENCE)
    return {"value": ranking.auroc(sample.label, sample.score), "low": found.low, "high": found.high}


def _versus_baselines(label: Labels, patient: Patients, scores: Mapping[str, Floats]) -> dict[str, Any] | None:
    """Compare the detector with the best baseline, and with each, on the same cases; None without baselines."""
    auroc = {name: ranking.auroc(label, score) for name, score in scores.items()}
    detector = auroc.pop("detector")
    if not auroc:
        return None

    def ends(name: str, level: float) -> Ends:
        found = joint.auroc_difference([Sample(label, scores["detector"], patient, scores[name])], level)
        return found.low, found.high, found.p

    gains = {name: detector - value for name, value in auroc.items()}
    best, compared = _simultaneous(gains, {name: partial(ends, name) for name in gains})
    few = joint.too_few(*joint.count_patients(label, patient))
    sentence = _sentence((best, len(auroc)), (detector, auroc[best]), compared["difference"], few)
    return {"best": best, **compared, "sentence": sentence}


def _simultaneous(gains: Mapping[str, float], ends: Mapping[str, Callable[..., Ends]]) -> tuple[str, dict[str, Any]]:
    """Return the best baseline, and the comparison with the one that is best among all patients, whichever that is.

    To be better than the best is to be better than each (Berger 1982, Technometrics 24, 295-300): the interval's lower
    end is the lowest of all differences' lower ends, which needs no correction. Its upper end is the lowest of the
    upper ends, each at a level that is corrected for their number (Bonferroni).

    Args:
        gains: detector minus baseline, of each.
        ends: interval and p-value of these by level.
    """
    best = min(gains, key=lambda name: gains[name] if gains[name] == gains[name] else math.inf)
    each = {name: ends[name](level=CONFIDENCE) for name in gains}
    low = min(low for low, _, _ in each.values())
    high = min(ends[name](level=1 - (1 - CONFIDENCE) / len(gains))[1] for name in gains)
    corrected = dict(zip(each, holm([p for _, _, p in each.values()]), strict=True))
    return best, {
        "difference": {"value": gains[best], "low": low, "high": high},
        "beaten": gains[best] > 0,
        "each": {
            name: {"value": gains[name], "low": low, "high": high, "p": corrected[name]}
            for name, (low, high, _) in each.items()
        },
    }


def _sentence(
    best: tuple[str, int], auroc: tuple[float, float], difference: Mapping[str, float], few: str | None
) -> str:
    """Return the comparison as a sentence.

    Args:
        best: name of the best baseline, and their number.
        auroc: of the detector and of that baseline.
        difference: of the two, with its interval.
        few: why there is none.
    """
    value, low, high = difference["value"], difference["low"], difference["high"]
    if math.isnan(value):
        return "The detector cannot be compared with a baseline: all test cases have the same label."
    name = kinds()[best[0]].noun if best[0] in kinds() else best[0]
    verdict = "beats" if value > 0 else "does not beat"
    compared = f"The detector {verdict} the {name} baseline: AUROC {_short(auroc[0])} against {_short(auroc[1])}"
    if few:
        return f"{compared} (difference {_short(value, '+')}). {few}"
    doubt = "excludes 0" if low > 0 or high < 0 else "includes 0, so these cases do not settle the comparison"
    chosen = f", which allows for the choice among {best[1]} baselines" if best[1] > 1 else ""
    interval = f"95 % interval {_short(low, '+')} to {_short(high, '+')}{chosen}"
    return f"{compared} (difference {_short(value, '+')}, {interval}). The interval {doubt}."


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
